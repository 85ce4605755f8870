"""The message when a command is interrupted from the keyboard."""

import shlex

import click

from ..display import format_bytes
from ..unfinished import unfinished
from .keys import ARGUMENTS, shown_command

__all__ = ["stopped"]


def stopped(context: click.Context) -> str:
    """What the interrupted command leaves on disk, and how to resume it.

    The command line is parsed again, as the command may have been interrupted before it was.
    """
    arguments = list(context.meta[ARGUMENTS])
    name = context.invoked_subcommand or ""
    command = context.command.get_command(context, name) if isinstance(context.command, click.Group) else None
    if command is None or name not in arguments:
        return "stopped"
    inner = click.Context(command, resilient_parsing=True)
    given, _, _ = command.make_parser(inner).parse_args(arguments[arguments.index(name) + 1 :])
    if "dst" not in given:
        return "stopped"
    stage, nbytes = unfinished(given["dst"])
    if not nbytes:
        return "stopped; nothing was written"
    return (
        f"stopped. What was written so far is kept in {stage} ({format_bytes(nbytes)} on the disk).\n"
        f"To resume:  {shown_command(arguments)}\nTo drop it: rm -r {shlex.quote(str(stage))}"
    )
