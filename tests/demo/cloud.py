"""The REST API of the demo's fakecloud, as any client would use it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx2

Json = dict[str, Any]


class Cloud:
    """A client with the demo's token."""

    def __init__(self, url: str, token_file: Path) -> None:
        self.url = url
        self._http = httpx2.Client(
            base_url=url,
            headers={"authorization": f"Bearer {token_file.read_text().strip()}"},
            timeout=15,
        )

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def put(self, name: str, document: Json) -> Json:
        """Put a load balancer and wait until it is active."""
        answer = self._http.put(f"/v1/load-balancers/{name}", params={"wait": "10s"}, json=document)
        answer.raise_for_status()
        made: Json = answer.json()
        return made

    def balancers(self) -> list[Json]:
        """Return all load balancers."""
        answer = self._http.get("/v1/load-balancers", params={"page_size": 1000})
        answer.raise_for_status()
        items: list[Json] = answer.json()["items"]
        return items

    def delete_all(self, timeout_s: float = 15.0) -> None:
        """Delete every load balancer and wait until all are gone."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            left = self.balancers()
            if not left:
                return
            for one in left:
                if one["status"]["state"] != "DELETING":
                    self._http.delete(f"/v1/load-balancers/{one['name']}")
            time.sleep(0.05)

    def cost_report(self, group_by: str) -> Json:
        """Return the cost of this month up to now."""
        answer = self._http.get("/v1/cost-report", params={"group_by": group_by})
        answer.raise_for_status()
        report: Json = answer.json()
        return report
