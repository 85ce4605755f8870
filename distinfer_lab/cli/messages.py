"""What the commands print: errors and notes name options by the command line, `--overwrite` for `overwrite=True`.

Which options a text names is a field of the error or note; click knows each by its name in Python, too.
"""

import re
import shlex

import click

from ..errors import DistinferError, Remark, options_of
from ..text import printable

__all__ = ["message", "say"]

SECURITY = "--tls-ca-file, --tls-cert and --tls-key"
"""What Python takes as one object, `distributed.Security`, the commands take as three files."""


def say(text: object, *, err: bool = False) -> None:
    """Print text that may contain names from files: control characters do not reach the terminal."""
    click.echo(printable(str(text), keep="\n"), err=err)


def message(said: DistinferError | Remark | str, command: click.Command) -> str:
    """The text of an error or a note, with its options by their names on the command line.

    An option stands at the beginning of a word: a path in which its text occurs is left alone.

    Examples
    --------
    >>> from distinfer_lab.errors import Option
    >>> ranks = click.Option(["--without-rank", "without"], multiple=True)
    >>> again = click.Option(["--resume/--no-resume"])
    >>> command = click.Command("reshard", params=[ranks, again])
    >>> without, fresh = Option("without", [3, 5]), Option("resume", False)
    >>> message(Remark(f"use {without} or {fresh}: /tmp/without=[3, 5]", without, fresh), command)
    'use --without-rank 3 --without-rank 5 or --no-resume: /tmp/without=[3, 5]'
    """
    text = str(said)
    known = {option.name: option for option in command.params if isinstance(option, click.Option)}
    written = [(str(o), _written(known[o.name], o.value)) for o in options_of(said) if o.name in known]
    if "tls_key" in known:
        written += [(str(option), SECURITY) for option in options_of(said) if option.name == "security"]
    # "dec_key=" is the beginning of "dec_key='00ff'".
    for old, new in sorted(written, key=lambda pair: len(pair[0]), reverse=True):
        text = re.sub(rf"(?<![^\s(]){re.escape(old)}", new.replace("\\", r"\\"), text)
    return text


def _written(option: click.Option, value: object) -> str:
    if option.is_flag:
        return option.secondary_opts[0] if value is False else option.opts[0]
    values = [] if value is None else value if isinstance(value, list) else [value]
    return " ".join(f"{option.opts[0]} {shlex.quote(str(one))}" for one in values) or option.opts[0]
