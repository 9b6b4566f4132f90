"""`Prefer` (RFC 7240): what a caller would like; what isn't understood is ignored."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import Depends, Header
from starlette.responses import Response

from fakecloud.errors import PreconditionFailed


class Preferences(msgspec.Struct, frozen=True, kw_only=True):
    """strict: no change without a condition. wait_s: how long to wait for the result, if asked.

    minimal: the answer to a change needs no body.
    """

    strict: bool = False
    wait_s: float | None = None
    minimal: bool = False
    applied: tuple[str, ...] = ()

    def check(self, *conditions: str | None) -> None:
        """Refuse a change without any of these headers, if that was asked for.

        Raises: PreconditionFailed.
        """
        if self.strict and not any(conditions):
            raise PreconditionFailed(
                "Prefer: handling=strict wants If-Match, or If-None-Match: *; send the ETag of "
                "what you have read"
            )

    def told(self, response: Response) -> Response:
        """Return the response as it was preferred, saying which preferences were met."""
        if self.minimal:
            kept = {k: v for k, v in response.headers.items() if not k.startswith("content-")}
            response = Response(None, response.status_code, kept)
        if self.applied:
            response.headers["preference-applied"] = ", ".join(self.applied)
        return response


def parse(text: str | None) -> Preferences:
    """Return the preferences of a header; of one that is there twice the first counts."""
    found: dict[str, str] = {}
    for part in (text or "").lower().split(","):
        name, _, value = part.partition(";")[0].partition("=")
        found.setdefault(name.strip(), value.strip().strip('"'))
    wait = found.get("wait", "")
    applied = []
    if found.get("handling") == "strict":
        applied.append("handling=strict")
    minimal = found.get("return") == "minimal"
    if minimal:
        applied.append("return=minimal")
    wait_s = None
    if wait.isascii() and wait.isdecimal() and len(wait) <= 9:
        applied.append(f"wait={int(wait)}")
        wait_s = float(wait)
    return Preferences(
        strict="handling=strict" in applied, wait_s=wait_s, minimal=minimal, applied=tuple(applied)
    )


async def _asked(
    prefer: Annotated[
        str | None,
        Header(
            max_length=1000,
            description="`handling=strict`: refuse without If-Match; `wait=25`: as the parameter; "
            "`return=minimal`: no body in the answer",
        ),
    ] = None,
) -> Preferences:
    return parse(prefer)


Preferred = Annotated[Preferences, Depends(_asked)]
