"""Every knob of the server: option `--x-y` and environment variable FAKECLOUD_X_Y."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fakecloud.errors import StartError


def default_state_dir() -> Path:
    """Return ${XDG_STATE_HOME:-~/.local/state}/fakecloud."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "fakecloud"


class Settings(BaseSettings):
    """Frozen; built once in app.py from options over environment over defaults."""

    model_config = SettingsConfigDict(env_prefix="FAKECLOUD_", frozen=True, extra="forbid")

    listen: str = "127.0.0.1:8440"
    insecure_listen: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    state_dir: Path = Field(default_factory=default_state_dir)
    database: str | None = None  # default: sqlite in the state directory
    token_file: Path | None = None  # default: admin.token in the state directory
    certificate_key_file: Path | None = None  # seals keys; default: in the state directory
    runtime_dir: Path | None = None  # short path for the sockets; default derived from state_dir
    pool: Annotated[tuple[str, ...], NoDecode] = ("default=loopback:127.77.0.0/16",)
    price_book: str = "aws-nlb-us-east-1"
    host_ports: str | None = None  # FIRST-LAST, published by the container that this server is in
    haproxy: str = "haproxy"
    haproxy_user: str | None = None  # UID:GID of the HAProxy processes when the server is root
    # Load balancers connect to targets from their clients' addresses where that is asked for. Only
    # in a network namespace of its own: what comes back is taken for ours, whoever it is meant for.
    transparent: bool = False
    docker_socket: Path = Path("/var/run/docker.sock")  # of the engine of docker pools
    docker_image: str = "haproxy:3.0"  # any image with haproxy, a shell and sleep
    workers: int = Field(default=4, ge=1, le=64)
    profile: str = "dev"
    host_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    # A host is dead to the others after host_dead_s without a heartbeat; by then, the kernel has
    # taken its interface addresses off. Default: 3.5 s, told every 0.5 s; alone on SQLite 30 and 10.
    heartbeat_s: float | None = Field(default=None, ge=0.1)
    host_dead_s: float | None = Field(default=None, ge=0.5)
    lease_s: float = Field(default=30.0, ge=1)
    rate_limit: int | None = Field(default=None, ge=1)  # cost per token and minute; None: none
    max_watches: int = Field(default=2000, ge=1)
    usage_days: int = Field(default=400, ge=1)  # hours of traffic are kept so long
    metrics_load_balancers: int = Field(default=1000, ge=0)  # those with series of their own
    event_history: int = Field(default=100_000, ge=1000)
    audit_history: int = Field(default=1_000_000, ge=1000)  # records of the newest changes
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("pool", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        """Accept FAKECLOUD_POOL as pools separated by commas."""
        return tuple(value.split(",")) if isinstance(value, str) else value

    @property
    def database_url(self) -> str:
        """Return the SQLAlchemy URL; SQLite in the state directory unless told otherwise."""
        return self.database or f"sqlite:///{self.state_dir / 'fakecloud.db'}"

    @property
    def uses_sqlite(self) -> bool:
        """Return whether this server is alone with its database."""
        return self.database_url.startswith("sqlite")

    @property
    def beat_s(self) -> float:
        """Return the pause between two heartbeats."""
        return self.heartbeat_s or (10.0 if self.uses_sqlite else 0.5)

    @property
    def dead_after_s(self) -> float:
        """Return after how long without a heartbeat a host is dead to the others."""
        return self.host_dead_s or (30.0 if self.uses_sqlite else 3.5)

    @property
    def admin_token_file(self) -> Path:
        """Return where the first token is written, mode 0600."""
        return self.token_file or self.state_dir / "admin.token"

    @property
    def seal_file(self) -> Path:
        """Return the file of the key that seals the keys of certificates."""
        return self.certificate_key_file or self.state_dir / "certificates.key"

    def address(self) -> tuple[str, int]:
        """Return host and port to listen on.

        Raises: StartError when `listen` is malformed or leaves loopback without protection, or
        half of a certificate is given.
        """
        host, colon, port = self.listen.rpartition(":")
        host = host.strip("[]")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            raise StartError(f"--listen {self.listen!r} is not HOST:PORT")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise StartError("--tls-cert and --tls-key belong together: give both or none")
        if self.tls_cert or self.insecure_listen:
            return host, int(port)
        loopback = host == "localhost"
        if not loopback:
            try:
                loopback = ip_address(host).is_loopback
            except ValueError:
                raise StartError(f"--listen {host!r} is not an IP address") from None
        if not loopback:
            raise StartError(
                f"--listen {self.listen} leaves this machine: give --tls-cert and --tls-key, "
                "or say --insecure-listen"
            )
        return host, int(port)


def load(**options: object) -> Settings:
    """Return the settings; options that are None fall back to environment and default.

    Raises: StartError that names the option.
    """
    try:
        return Settings(**{k: v for k, v in options.items() if v is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "--" + "-".join(str(part) for part in first["loc"]).replace("_", "-")
        raise StartError(f"{name}: {first['msg']}") from None
