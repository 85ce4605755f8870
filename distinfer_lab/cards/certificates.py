"""The certificate of an embedded cluster: made for one group, held in memory only, gone with it.

One key and one certificate serve the scheduler, the nannies, the workers and the client: each shows it, and
trusts nothing else. So who does not have the key neither runs code on the cluster nor can pose as a part of it.
"""

import datetime
from typing import Any

from distributed import Security

__all__ = ["temporary_security"]

LIFETIME = datetime.timedelta(days=3650)
"""Longer than any group lives: Dask does not renew a certificate."""
LEEWAY = datetime.timedelta(days=1)
"""For a clock that is set back while the group lives."""


def temporary_security() -> Security:
    """Credentials for all parts of one Dask cluster, which talk over TLS only.

    `Security.temporary` makes an RSA key, which takes up to a second; this one is of the curve P-256.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(key).public_bytes(serialization.Encoding.PEM).decode()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    roles = ("client", "scheduler", "worker")
    return Security(
        require_encryption=True,
        tls_ca_file=certificate,
        **{f"tls_{role}_cert": certificate for role in roles},
        **{f"tls_{role}_key": secret for role in roles},
    )


def _self_signed(key: Any) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "distinfer_lab cards")])
    now = datetime.datetime.now(datetime.UTC)
    public = key.public_key()
    builder = x509.CertificateBuilder(
        name, name, public, x509.random_serial_number(), now - LEEWAY, now + LIFETIME
    )
    # These three are what a strict reader of RFC 5280 asks of a certificate that vouches for itself.
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False
    )
    return builder.sign(key, hashes.SHA256())
