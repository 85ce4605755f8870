"""The certificate of an embedded cluster: made for one group, held in memory only, gone with it.

One key and one certificate serve the scheduler, the nannies, the workers and the client: each shows it, and
trusts nothing else. So who does not have the key neither runs code on the cluster nor can pose as a part of it.
"""

import contextlib
import datetime
import os
import ssl
import tempfile
from collections.abc import Iterator
from typing import Any

from distributed import Security

__all__ = ["GroupSecurity", "temporary_security"]

LIFETIME = datetime.timedelta(days=3650)
"""Longer than any group lives: Dask does not renew a certificate."""
LEEWAY = datetime.timedelta(days=1)
"""For a clock that is set back while the group lives."""


class GroupSecurity(Security):  # type: ignore[misc]  # distributed has no types
    """Credentials for all parts of one Dask cluster, which talk over TLS only.

    Dask's own would write the key to a file whenever a part of the cluster starts.

    Parameters
    ----------
    certificate, key
        As PEM. The certificate vouches for itself.
    """

    def __init__(self, certificate: str, key: str) -> None:
        roles = ("client", "scheduler", "worker")
        super().__init__(
            require_encryption=True,
            tls_min_version=ssl.TLSVersion.TLSv1_3,
            tls_ca_file=certificate,
            **{f"tls_{role}_cert": certificate for role in roles},
            **{f"tls_{role}_key": key for role in roles},
        )
        self._contexts: dict[ssl.Purpose, ssl.SSLContext] = {}

    def __reduce__(self) -> Any:
        return GroupSecurity, (self.tls_worker_cert, self.tls_worker_key)

    def get_connection_args(self, role: str) -> dict[str, Any]:
        """See `Security`."""
        return self._arguments(ssl.Purpose.SERVER_AUTH) | {"extra_conn_args": {}}

    def get_listen_args(self, role: str) -> dict[str, Any]:
        """See `Security`."""
        return self._arguments(ssl.Purpose.CLIENT_AUTH)

    def _arguments(self, purpose: ssl.Purpose) -> dict[str, Any]:
        if purpose not in self._contexts:
            self._contexts[purpose] = self._context(purpose)
        return {"ssl_context": self._contexts[purpose], "require_encryption": True}

    def _context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        context = ssl.create_default_context(purpose, cadata=self.tls_ca_file)
        context.minimum_version = self.tls_min_version
        context.check_hostname = False  # the certificate names no host: who has its key is who is meant
        context.verify_mode = ssl.CERT_REQUIRED  # on both sides
        with _as_file(self.tls_worker_cert + self.tls_worker_key) as path:
            context.load_cert_chain(path)
        return context


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[str]:
    """A path to a secret text for as long as it is read; where the system can, of memory that is in no folder."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        with open(os.memfd_create("certificate", os.MFD_CLOEXEC), "w") as file:
            file.write(text)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            yield file.name


def temporary_security() -> GroupSecurity:
    """Credentials that nobody else has.

    `Security.temporary` makes an RSA key, which takes up to a second; this one is of the curve P-256.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(key).public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return GroupSecurity(certificate.decode(), secret.decode())


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
