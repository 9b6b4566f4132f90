"""Secrets in the database are sealed: a copy of it alone opens none of them."""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fakecloud import files
from fakecloud.errors import StartError, Transient

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class Seal:
    """AES-256-GCM with a key in a file, mode 0600, made when it is first needed.

    Servers on one database need the same file. Raises: StartError when it can't be used.
    """

    def __init__(self, path: Path) -> None:
        """Use the key in file `path`."""
        self._path = path
        self._cipher: AESGCM | None = None

    def close(self, text: str, context: str) -> str:
        """Return `text` sealed; it opens only under the same `context`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._key().encrypt(nonce, text.encode(), context.encode())
        return b64encode(nonce + sealed).decode()

    def open(self, sealed: str, context: str) -> str:
        """Return what was sealed. Raises: Transient when it was sealed with another key."""
        data = b64decode(sealed)
        nonce, rest = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
        try:
            return self._key().decrypt(nonce, rest, context.encode()).decode()
        except InvalidTag:
            raise Transient(
                "certificate_sealed",
                "the key of the certificate was sealed by a server with another key file; give"
                " all servers of the database the same (FAKECLOUD_CERTIFICATE_KEY_FILE)",
            ) from None

    def _key(self) -> AESGCM:
        if self._cipher is None:
            try:
                if not self._path.exists():
                    files.write(self._path, secrets.token_bytes(_KEY_BYTES), durable=True)
                self._cipher = AESGCM(self._path.read_bytes())
            except (OSError, ValueError) as error:
                raise StartError(f"the key file {self._path} can't be used: {error}") from error
        return self._cipher
