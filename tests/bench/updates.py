"""Failed requests while the targets of a load balancer change under load."""

from __future__ import annotations

from typing import Any

from tests.bench.latency import PORT
from tests.demo import traffic
from tests.demo.cloud import Cloud


def failed_requests(cloud: Cloud, targets: list[tuple[str, int]], updates: int) -> tuple[int, int]:
    """Return (failed, done) requests while one target after the other leaves and comes back."""
    made = cloud.put("bench-updates", _document(targets))
    ip = made["status"]["addresses"][0]["ip"]
    with traffic.Traffic(ip, PORT, threads=8, pause_s=0.001) as load:
        load.wait_for(200)
        for number in range(updates):
            gone = targets[(number // 2) % len(targets)] if number % 2 == 0 else None
            cloud.put("bench-updates", _document([one for one in targets if one != gone]))
            load.wait_for(100)
    return load.failed, load.done


def _document(targets: list[tuple[str, int]]) -> dict[str, Any]:
    return {
        "spec": {
            "listeners": [{"name": "http", "protocol": "tcp", "port": PORT, "target_group": "all"}],
            "target_groups": [
                {"name": "all", "targets": [{"ip": ip, "port": port} for ip, port in targets]}
            ],
        }
    }
