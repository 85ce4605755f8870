"""What every card process would do once, done before it is forked (see `cluster.PRELOADED`)."""

from tornado import netutil

__all__: list[str] = []

# At its first TLS connection Tornado reads the system's certificates, whoever is trusted: 44 ms in each process.
_read = getattr(netutil, "_client_ssl_defaults", None)
if callable(_read):
    _read()
