"""The command line: `distinfer demo`, `lab`, `notebooks`; `inspect`, `plan`, `reshard`, `verify`, `rules`.

Results go to stdout, progress and notes to stderr. The exit status is 0 for success, 1 for an error in the data or
in the run, 2 for a usage error.
"""

from typing import Any

import click

from ..errors import DistinferError
from ..version import __version__
from .checkpoints import inspect, plan, reshard, verify
from .demo import demo, lab, notebooks
from .keys import ARGUMENTS
from .messages import message
from .rules import rules
from .stopping import stopped

__all__ = ["main"]


class _Group(click.Group):
    """Reports our own errors by the option names of the command that failed, and exits with status 1."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DistinferError as err:
            command = self.get_command(ctx, ctx.invoked_subcommand or "") or self
            raise click.ClickException(message(err, command)) from err
        except KeyboardInterrupt as err:
            raise click.ClickException(stopped(ctx)) from err


@click.group(cls=_Group)
@click.version_option(__version__, prog_name="distinfer")
def main() -> None:
    """Reshard distributed checkpoints, and predict from them."""


for command in (demo, lab, notebooks, inspect, plan, reshard, verify, rules):
    main.add_command(command)
