"""The door to other people's servers: a POST with a deadline, no redirects, no answer read."""

from __future__ import annotations

from typing import Final

import httpx2

from fakecloud.accounting.webhooks import Undelivered

TIMEOUT_S: Final = 5.0


class HttpPost:
    """Sends by HTTP; proxies of the environment aren't used."""

    def send(self, url: str, headers: dict[str, str], body: bytes) -> int:
        """Return the status of the answer. Raises: Undelivered."""
        try:
            with (
                httpx2.Client(timeout=TIMEOUT_S, trust_env=False) as http,
                http.stream("POST", url, headers=headers, content=body) as answer,
            ):
                return answer.status_code
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise Undelivered(reason) from error
