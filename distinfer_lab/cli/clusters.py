"""The options that name a Dask cluster, by Dask's own names."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import click

__all__ = ["Cluster", "cluster_options"]

TLS = ("tls_ca_file", "tls_cert", "tls_key")


class Cluster(NamedTuple):
    """A running cluster."""

    option: str
    """The option that names it."""
    arguments: dict[str, Any]
    """Of `CardGroup`."""


def cluster_options(function: Callable[..., Any]) -> Any:
    """Give a command `--scheduler`, `--scheduler-file` and those of TLS as one parameter, `cluster`."""
    file = click.Path(exists=True, dir_okay=False)

    @click.option(
        "--scheduler", metavar="ADDRESS", help="Use the workers of this Dask cluster to write the files."
    )
    @click.option(
        "--scheduler-file",
        type=file,
        help="The same, from the file that `dask scheduler --scheduler-file` wrote.",
    )
    @click.option(
        "--tls-ca-file", type=file, help="With TLS: the certificate authority of the cluster (PEM)."
    )
    @click.option("--tls-cert", type=file, help="With TLS: the client certificate (PEM).")
    @click.option("--tls-key", type=file, help="With TLS: the key of the client certificate (PEM).")
    @wraps(function)
    def call(*args: Any, scheduler: str | None, scheduler_file: str | None, **options: Any) -> Any:
        tls = {name: options.pop(name) for name in TLS}
        return function(*args, cluster=_cluster(scheduler, scheduler_file, tls), **options)

    return call


def _cluster(scheduler: str | None, scheduler_file: str | None, tls: dict[str, str | None]) -> Cluster | None:
    given = {name for name, path in tls.items() if path is not None}
    if scheduler is not None and scheduler_file is not None:
        raise click.UsageError("--scheduler and --scheduler-file both name a cluster; give one of them")
    if given and len(given) < len(TLS):
        lacking = [f"--{name.replace('_', '-')}" for name in TLS if name not in given]
        raise click.UsageError(
            f"TLS needs a certificate authority, a certificate and its key: add {' and '.join(lacking)}"
        )
    if scheduler is None and scheduler_file is None:
        if given:
            raise click.UsageError(
                "--tls-ca-file, --tls-cert and --tls-key need --scheduler or --scheduler-file"
            )
        return None
    security = {"security": _security(tls)} if given else {}
    if scheduler_file is not None:
        return Cluster("--scheduler-file", {"scheduler_file": scheduler_file, **security})
    return Cluster("--scheduler", {"address": scheduler, **security})


def _security(tls: dict[str, str | None]) -> Any:
    from distributed import Security

    return Security(
        tls_ca_file=tls["tls_ca_file"],
        tls_client_cert=tls["tls_cert"],
        tls_client_key=tls["tls_key"],
        require_encryption=True,
    )
