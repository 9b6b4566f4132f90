"""Certificates that are over: what a load balancer shows whose owner forgot to renew them."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import Final, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fakecloud.haproxy import words

REMEMBERED: Final = 256
_AGO: Final = timedelta(days=1)


@lru_cache(REMEMBERED)
def twin(pem: words.Pem) -> tuple[words.Pem, str]:
    """Return PEM and SHA-1 of a certificate that ended a day before that of `pem` began.

    It has the same names and the same key, which signs it. The same is returned again for the
    same, so that asking twice changes nothing.
    """
    leaf = x509.load_pem_x509_certificates(pem.encode())[0]
    _, mark, secret = pem.partition("-----BEGIN PRIVATE KEY")
    loaded = serialization.load_pem_private_key((mark + secret).encode(), password=None)
    key = cast(rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, loaded)  # `domain.pem` took no other
    ended = leaf.not_valid_before_utc - _AGO
    builder = (
        x509.CertificateBuilder()
        .subject_name(leaf.subject)
        .issuer_name(leaf.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ended - _AGO)
        .not_valid_after(ended)
    )
    for extension in leaf.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            builder = builder.add_extension(extension.value, critical=extension.critical)
    made = builder.sign(key, hashes.SHA256())
    chain = made.public_bytes(serialization.Encoding.PEM).decode()
    # HAProxy knows certificates by this fingerprint; nothing trusts it.
    fingerprint = made.fingerprint(hashes.SHA1()).hex().upper()
    return words.Pem(chain + mark + secret), fingerprint
