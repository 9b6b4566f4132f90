"""The client's door to a running cloud."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import httpx2
import typer

from fakecloud.settings import default_state_dir

DEFAULT_URL: Final = "http://127.0.0.1:8440"
TIMEOUT_S: Final = 30.0

Url = Annotated[str, typer.Option(envvar="FAKECLOUD_URL", help="the cloud's URL")]
TokenFile = Annotated[
    Path | None,
    typer.Option(envvar="FAKECLOUD_TOKEN_FILE", help="default: admin.token of the state directory"),
]


class CommandFailed(typer.Exit):
    """The command can't be done; its one line has been printed. Exit code 1."""

    def __init__(self, message: str) -> None:
        """Print `message` on standard error."""
        typer.echo(f"fakecloud: {message}", err=True)
        super().__init__(1)


class Client:
    """Requests with a token; answers as JSON values. Every method raises CommandFailed."""

    def __init__(self, http: httpx2.Client) -> None:
        """Use `http`, which knows URL and token."""
        self._http = http

    def get(self, path: str, **params: str | int | None) -> Any:
        """Return the JSON answer to GET."""
        return _value(self._send("GET", path, params))

    def text(self, path: str, **params: str | int | None) -> str:
        """Return the answer to GET as it is."""
        return self._send("GET", path, params).text

    def delete(self, path: str) -> Any:
        """Return the JSON answer to DELETE."""
        return _value(self._send("DELETE", path, {}))

    def put(self, path: str, body: Any) -> Any:
        """Return the JSON answer to PUT with a JSON body."""
        return _value(self._send("PUT", path, {}, body))

    def post(self, path: str, body: Any = None) -> Any:
        """Return the JSON answer to POST with a JSON body, or none."""
        return _value(self._send("POST", path, {}, body))

    def items(self, path: str, **params: str | None) -> Iterator[Any]:
        """Yield the items of a list, page by page."""
        token: str | None = None
        while True:
            page = self.get(path, page_size=500, page_token=token, **params)
            yield from page["items"]
            token = page["next_page_token"]
            if token is None:
                return

    def lines(self, path: str, *, method: str = "GET", **params: str | int | None) -> Iterator[str]:
        """Yield the lines of a long or endless answer; they end at LF and nowhere else."""
        wanted = {name: value for name, value in params.items() if value is not None}
        timeout = httpx2.Timeout(TIMEOUT_S, read=60.0)
        try:
            with self._http.stream(method, path, params=wanted, timeout=timeout) as answer:
                if answer.is_error:
                    answer.read()
                    raise CommandFailed(_problem(answer))
                yield from _lines(answer.iter_text())
        except httpx2.HTTPError as error:
            raise CommandFailed(self._unreachable(error)) from None

    def _send(
        self, method: str, path: str, params: dict[str, str | int | None], body: Any = None
    ) -> httpx2.Response:
        wanted = {name: value for name, value in params.items() if value is not None}
        try:
            answer = self._http.request(method, path, params=wanted, json=body)
        except httpx2.HTTPError as error:
            raise CommandFailed(self._unreachable(error)) from None
        if answer.is_error:
            raise CommandFailed(_problem(answer))
        return answer

    def _unreachable(self, error: Exception) -> str:
        reason = str(error) or type(error).__name__
        return (
            f"no answer from {self._http.base_url}: {reason}; "
            "start it with `fakecloud serve`, or set FAKECLOUD_URL"
        )


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a text that comes in parts.

    `iter_lines` also ends them at what may stand inside a label: U+2028, U+0085, a CR.
    """
    begun: list[str] = []
    for text in texts:
        end, *more = text.split("\n")
        begun.append(end)
        for next_one in more:
            yield "".join(begun)
            begun = [next_one]
    if last := "".join(begun):
        yield last


def path(kind: str, name: str, what: str = "a name") -> str:
    """Return where a resource is; whatever `name` holds is one segment of the path.

    Raises: BadParameter, saying that it isn't `what`, for a name that paths understand otherwise.
    """
    if name in ("", ".", ".."):
        raise typer.BadParameter(f"{name!r} is not {what}")
    return f"/v1/{kind}/{quote(name, safe='')}"


@contextmanager
def connect(url: str, token_file: Path | None, project: str | None = None) -> Iterator[Client]:
    """Give a client for the cloud at `url`, in `project` instead of the token's own if given.

    FAKECLOUD_PROJECT says the same for every command.
    Raises: CommandFailed without a token.
    """
    headers = {"authorization": f"Bearer {_token(token_file)}"}
    project = project or os.environ.get("FAKECLOUD_PROJECT")
    if project:
        headers["x-project"] = project.encode("ascii", "replace").decode()
    try:
        http = httpx2.Client(base_url=url, headers=headers, timeout=TIMEOUT_S)
    except httpx2.InvalidURL:
        raise CommandFailed(f"{url!r} is not a URL such as {DEFAULT_URL}") from None
    with http:
        yield Client(http)


def _token(token_file: Path | None) -> str:
    if token_file is None and (token := os.environ.get("FAKECLOUD_TOKEN")):
        return _checked(token, "FAKECLOUD_TOKEN")
    path = token_file or default_state_dir() / "admin.token"
    try:
        return _checked(path.read_text(encoding="ascii", errors="replace"), str(path))
    except OSError as error:
        raise CommandFailed(
            f"{path}: {error.strerror}; set FAKECLOUD_TOKEN or FAKECLOUD_TOKEN_FILE"
        ) from None


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not (token.isascii() and token.isalnum()):
        raise CommandFailed(f"{where} holds no token: letters and digits on one line")
    return token


def _value(answer: httpx2.Response) -> Any:
    if answer.status_code == 204:
        return None
    try:
        return answer.json()
    except ValueError:
        raise CommandFailed(
            f"what answers at {answer.url} is not a fakecloud; set FAKECLOUD_URL"
        ) from None


def _problem(answer: httpx2.Response) -> str:
    try:
        problem = answer.json()
        return f"{problem['detail']} ({problem['code']})"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code} from {answer.url}, and no reason with it"
