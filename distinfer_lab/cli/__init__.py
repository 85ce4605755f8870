"""The command line: `distinfer demo`, `lab`, `notebooks`; `inspect`, `plan`, `reshard`, `verify`, `rules`.

What a command found out goes to stdout, how far it is to stderr. The status is 0 when all is well,
1 when something is wrong with what was given or found, 2 when the command was called wrongly.
"""

from typing import Any

import click

from ..errors import DistinferError
from ..version import __version__
from .beginning import demo, lab, notebooks
from .checkpoints import inspect, plan, reshard, verify
from .keys import ARGUMENTS
from .messages import message
from .rules import rules
from .stopping import stopped

__all__ = ["main"]


class _Group(click.Group):
    """Tells our own errors, in the words of the command that failed, and leaves with status 1."""

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
    """Distributed inference from sliced checkpoints."""


for command in (demo, lab, notebooks, inspect, plan, reshard, verify, rules):
    main.add_command(command)
