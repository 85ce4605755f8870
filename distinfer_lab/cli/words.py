"""Errors in the command line's words: what Python calls `overwrite=True` is `--overwrite` here.

The table of names is that of a command's own options: click knows each by its name in Python, too.
"""

import re
import shlex

import click

from ..text import printable

__all__ = ["in_options", "say"]


def say(text: object, *, err: bool = False) -> None:
    """Print text that may name things of files: nothing in it reaches the terminal as an order."""
    click.echo(printable(str(text), keep="\n"), err=err)


def in_options(text: str, command: click.Command) -> str:
    """A text whose keyword arguments are said as the options of a command.

    One stands at the beginning of a word, so that no path is touched: a name, "=", and a value or none.

    Examples
    --------
    >>> ranks = click.Option(["--without-rank", "without"], multiple=True)
    >>> again = click.Option(["--resume/--no-resume"])
    >>> command = click.Command("reshard", params=[ranks, again])
    >>> in_options("leave one out by without=[3, 5] or without=, or use resume=False: /tmp/without=[3]", command)
    'leave one out by --without-rank 3 --without-rank 5 or --without-rank, or use --no-resume: /tmp/without=[3]'
    """
    options = {option.name: option for option in command.params if isinstance(option, click.Option)}
    keyword = rf"(?<![^\s(])({'|'.join(map(str, options))})=('[^']*'|\[[^]]*]|\w*)"
    return re.sub(keyword, lambda found: _said(options[found[1]], found[2]), text) if options else text


def _said(option: click.Option, value: str) -> str:
    if option.is_flag:
        return option.secondary_opts[0] if value == "False" else option.opts[0]
    values = value[1:-1].split(", ") if value.startswith("[") else [value]
    given = [shlex.quote(one.strip("'")) if one else "" for one in values]
    return " ".join(f"{option.opts[0]} {one}".strip() for one in given)
