"""Which entries a conversion takes, and which tensors are named somewhere but held by no file.

::

    select         ["*.weight", "!lm_head*"]   which entries; "!" leaves out
    allow_missing  ["mtp.*"]                   which tensors may be missing, though something names them

A star stands for any text, dots too, as in a shell: "*v_proj.weight" fits "qkv_proj.weight", "*.v_proj.weight" does
not. (In rules of what a mesh cuts a star at the beginning stands for whole parts of a name.)
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ..errors import Option, ReshardError, listed
from ..layout import Strategy
from ..text import pattern_of
from .files import CheckpointFiles
from .records import is_state_of

__all__ = ["all_names", "check_missing", "check_shapes", "fits", "near_names", "selected", "unmatched"]

MOST_COMPARED = 4096
"""Names that are compared with a pattern that fits none."""
NOT_HELD = "the strategy or the index names it, and no file holds it; open the file that does too"
RENAME = Option("rename")
NOT_THERE = f"the destination names it, and the checkpoint has no entry of this name; give it one by {RENAME}"


def selected(names: Sequence[str], select: Sequence[str] | str | None, also: Iterable[str] = ()) -> list[str]:
    """The names that some pattern takes and none with "!" leaves out.

    Parameters
    ----------
    also
        Names that a pattern may fit though they are not among those to choose from.

    Raises
    ------
    ReshardError
        If a pattern fits nothing.
    """
    if select is None:
        return list(names)
    patterns = [select] if isinstance(select, str) else list(select)
    known = {*names, *also}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern.removeprefix("!")) for name in known):
            near = near_names(pattern.removeprefix("!"), names)
            raise ReshardError(f"select: no entry fits {pattern!r}; {near}", Option("select"))
    taken = [p for p in patterns if not p.startswith("!")] or ["*"]
    left = [p[1:] for p in patterns if p.startswith("!")]
    return [n for n in names if fits(n, taken) and not fits(n, left)]


def near_names(pattern: str, names: Sequence[str]) -> str:
    """Which names a pattern that fits none may have been meant for.

    >>> near_names("embed.wieght", ["embed.weight", "head.bias"])
    'did you mean embed.weight?'
    """
    near = get_close_matches(pattern, names[:MOST_COMPARED], 3)
    return f"did you mean {listed(near)}?" if near else f"the checkpoint has {listed(names)}"


def unmatched(patterns: Sequence[str] | str, names: Collection[str]) -> tuple[str, ...]:
    """The patterns that no name fits."""
    each = [patterns] if isinstance(patterns, str) else patterns
    return tuple(pattern for pattern in each if not any(fnmatchcase(name, pattern) for name in names))


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name fits one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_missing(
    checkpoint: CheckpointFiles,
    dst: Strategy | None,
    written: Collection[str],
    select: Sequence[str] | str | None,
    allow_missing: Sequence[str] | str,
) -> None:
    """Refuse a conversion whose result would lack a tensor that the source or the destination names.

    Parameters
    ----------
    dst
        The destination as it was given; None if nothing names its tensors.
    written
        The names that the destination gets.

    Raises
    ------
    ReshardError
        If a tensor is missing that `select` takes and `allow_missing` does not allow.
    """
    allowed = [allow_missing] if isinstance(allow_missing, str) else list(allow_missing)
    there = set(written)
    lost = "".join(f"rank {rank} is lost: {file.reason}\n" for rank, file in checkpoint.lost.items())
    unmet = [name for name in dst or () if name not in there and not is_state_of(name, dst or {})]
    for names, words in ((checkpoint.missing, NOT_HELD), (unmet, NOT_THERE)):
        left = [
            name for name in selected(names, select, all_names(checkpoint, dst)) if not fits(name, allowed)
        ]
        if left:
            more = f" (and {len(left) - 1} more: {listed(left[1:], 3)})" if len(left) > 1 else ""
            allow = Option("allow_missing", _pattern(left))
            raise ReshardError(
                f"{lost}{left[0]}{more}: {words}, or leave it out by {allow}",
                RENAME,
                allow,
                parameter=left[0],
            )


def check_shapes(dst: Strategy, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a destination that knows a tensor by another shape: it is for another net.

    Parameters
    ----------
    shapes
        The full shape of each tensor that is written, by its name in the destination.

    Raises
    ------
    ReshardError
        With the shapes that differ.
    """
    other = [n for n, shape in shapes.items() if dst.shapes.get(n, shape) != shape]
    if other:
        name, more = other[0], f" (and {len(other) - 1} more: {listed(other[1:], 3)})" if other[1:] else ""
        without = Option("select", [f"!{pattern_of(n)}" for n in other])
        leaving_out = f", or leave out what differs by {without}" if len(other) <= 3 else ""
        raise ReshardError(
            f"{name}{more}: the destination says shape {list(dst.shapes[name])}, but the checkpoint has "
            f"{list(shapes[name])}; give the strategy of this net{leaving_out}",
            without,
            parameter=name,
        )


def all_names(checkpoint: CheckpointFiles, dst: Strategy | None) -> set[str]:
    """Every name that the files hold, or a strategy or an index names."""
    return {*checkpoint.tensors, *checkpoint.texts, *checkpoint.unreadable, *checkpoint.missing, *(dst or ())}


def _pattern(names: Sequence[str]) -> list[str]:
    """Patterns that fit all the names: themselves where they are few."""
    return list(names) if len(names) <= 3 else ["*"]
