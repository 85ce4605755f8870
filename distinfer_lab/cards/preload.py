"""What each card process would otherwise do by itself, done once before they are forked (see `PRELOADED`)."""

from tornado import netutil

__all__: list[str] = []

# Private to Tornado: at its first TLS connection it reads the system's certificates, whoever is trusted, which
# takes 44 ms in each process.
_read = getattr(netutil, "_client_ssl_defaults", None)
if callable(_read):
    _read()
