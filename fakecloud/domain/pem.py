"""Certificates as customers bring them: read once, written anew, never as they came."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fakecloud.errors import FieldError, ValidationFailed

MOST_IN_CHAIN: Final = 10
LEAST_RSA_BITS: Final = 2048
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_PEM: Final = serialization.Encoding.PEM


class KeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """A chain, leaf first, and its key; times are aware UTC.

    sha256 is what people compare, sha1 what HAProxy tells; both of the leaf, capital hexadecimal.
    """

    chain: str
    key: str
    hosts: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    sha256: str
    sha1: str

    def __repr__(self) -> str:
        """Return no part of the key."""
        return f"KeyPair(hosts={self.hosts!r}, sha256={self.sha256!r})"


def read(certificate: str, private_key: str) -> KeyPair:
    """Return what was brought, checked. Raises: ValidationFailed that names the field."""
    chain = _chain(certificate)
    key = _key(private_key)
    leaf = chain[0]
    if leaf.public_key() != key.public_key():
        raise _wrong("/private_key", "is not the key of the first certificate")
    return KeyPair(
        chain="".join(one.public_bytes(_PEM).decode() for one in chain),
        key=key.private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        hosts=_hosts(leaf),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        sha256=_fingerprint(leaf, hashes.SHA256()),
        sha1=sha1(leaf),
    )


def sha1(leaf: x509.Certificate) -> str:
    """Return the fingerprint by which HAProxy tells certificates apart; nothing trusts it."""
    return _fingerprint(leaf, hashes.SHA1())


def leaf_of(chain: str) -> x509.Certificate:
    """Return the first certificate of a chain that `read` has written."""
    return x509.load_pem_x509_certificate(chain.encode())


def _chain(text: str) -> list[x509.Certificate]:
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise _wrong("/certificate", "is not a PEM certificate, or not only such") from None
    if len(chain) > MOST_IN_CHAIN:
        raise _wrong("/certificate", f"has more than {MOST_IN_CHAIN} certificates")
    return chain


def _key(text: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise _wrong("/private_key", "is encrypted; give it without a password") from None
    except ValueError:
        raise _wrong("/private_key", "is not a PEM private key") from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= LEAST_RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES):
        return key
    raise _wrong("/private_key", f"must be RSA of {LEAST_RSA_BITS} bits or more, or ECDSA")


def _hosts(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.get_values_for_type(x509.DNSName))


def _fingerprint(leaf: x509.Certificate, algorithm: hashes.HashAlgorithm) -> str:
    return leaf.fingerprint(algorithm).hex().upper()


def _wrong(pointer: str, message: str) -> ValidationFailed:
    return ValidationFailed(
        f"{pointer} {message}", errors=(FieldError(pointer, "invalid", message),)
    )
