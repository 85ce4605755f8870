"""The key of an encrypted checkpoint, by option, file or environment, and a command line without it.

::

    --key HEX          other users see it in the list of processes, and it stays in the shell's history
    --key-file FILE    - is stdin
    DISTINFER_KEY      for files that turn out to be encrypted; the options come first
"""

import os
import shlex
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import click

from ..secret import SecretKey

__all__ = ["ARGUMENTS", "EnvironmentKey", "key_options", "shown_command"]

VARIABLE = "DISTINFER_KEY"
LONGEST = 4096
FILE = "distinfer_lab.key_file"
ARGUMENTS = "distinfer_lab.arguments"
"""Where click's context keeps the content of the key's file, and the words of the command line."""


class EnvironmentKey(SecretKey):
    """A key that is there for whatever turns out to be encrypted; it does not say that something is."""

    __slots__ = ()


def _take_file(context: click.Context, parameter: click.Parameter, file: BinaryIO | None) -> None:
    context.meta[FILE] = None if file is None else file.read(LONGEST + 1)


def _take_key(context: click.Context, parameter: click.Parameter, text: str | None) -> SecretKey | None:
    content: bytes | None = context.meta.get(FILE)
    if text is not None and content is not None:
        raise click.UsageError("--key and --key-file both give the key; use --key-file")
    if text is not None:
        return SecretKey(_from_hex(text, "--key"))
    if content is not None:
        return SecretKey(_from_hex(content.decode("ascii", "replace"), "--key-file"))
    if text := os.environ.get(VARIABLE):
        return EnvironmentKey(_from_hex(text, VARIABLE))
    return None


def _from_hex(text: str, origin: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip()) if len(text) <= LONGEST else b""
    except ValueError:
        key = b""
    if not key:
        raise click.BadParameter("a key is given in hex, e.g. 000102...", param_hint=origin)
    return key


def key_options() -> list[Callable[[Any], Any]]:
    """The options, which give one parameter, `dec_key`."""
    return [
        click.option(
            "--key",
            "dec_key",
            metavar="HEX",
            callback=_take_key,
            help="The key of an encrypted checkpoint, in hex. Other users can see it in the process list; prefer "
            f"--key-file, or the environment variable {VARIABLE}.",
        ),
        click.option(
            "--key-file",
            type=click.File("rb"),
            is_eager=True,
            expose_value=False,
            callback=_take_file,
            help="A file with the key, in hex; - is stdin.",
        ),
    ]


def shown_command(arguments: Sequence[str]) -> str:
    """The command line with these arguments, without the key and what would keep it from resuming.

    Examples
    --------
    >>> shown_command(["reshard", "a b", "out", "--key", "00ff", "--no-resume"])
    "distinfer reshard 'a b' out --key HEX"
    """
    shown: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before == "--key":
            shown.append("HEX")
        elif argument.startswith("--key="):
            shown.append("--key=HEX")
        elif argument != "--no-resume":
            shown.append(argument)
    return shlex.join(["distinfer", *shown])
