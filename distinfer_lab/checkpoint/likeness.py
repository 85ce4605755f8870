"""Whether an output fits the Hugging Face folder whose config.json and tokenizer are copied along.

::

    names     each tensor of the one is a tensor of the other; a tied head may be left out
    shapes    the same
    dtypes    of one kind: a quantised tensor stays one
    config    num_hidden_layers, vocab_size and quantization_config are true of what is written

A loader fills what is missing with random numbers, so a difference is refused.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from ..errors import DistinferError, Option, Remark, ReshardError, listed
from ..formats import (
    NamedTensor,
    config_names,
    config_problems,
    has_tied_head,
    kind_of_dtype,
    members_of,
    open_files,
    sibling_config,
)
from .selection import fits

__all__ = ["check_like", "names_in", "names_of"]

HEADS = ("lm_head.weight",)
LIKE = Option("like")


def check_like(
    written: Mapping[str, NamedTensor],
    like: str | os.PathLike[str],
    allow_missing: Sequence[str],
    are_equal: Callable[[str, str], bool],
) -> None:
    """Refuse an output that is of another model than the folder `like`.

    Parameters
    ----------
    written
        All tensors of the output.
    allow_missing
        Patterns of tensors that the output may lack.
    are_equal
        See `config_problems`.

    Raises
    ------
    ReshardError
        If they differ; the first differences are named.
    """
    config = sibling_config(like) or {}
    known = _tensors(like)
    tied = HEADS if has_tied_head(config) is True else ()
    _check_names(like, known, written, (*allow_missing, *tied))
    problems = [
        *_differences(written, known),
        *(
            Remark(f"its config.json has {words}", of=words)
            for words in config_problems(config, written, allow_missing, are_equal)
        ),
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        given = Option("like", os.fspath(like))
        raise ReshardError(
            f"{given} is of another model: {problems[0]}{more}; give the folder of the same model, "
            f"or leave {LIKE} out",
            given,
            LIKE,
            of=problems[0],
            file=like,
        )


def _check_names(
    like: str | os.PathLike[str], known: Collection[str], written: Collection[str], allowed: Sequence[str]
) -> None:
    lacking = [name for name in known if name not in written and not fits(name, allowed)]
    if lacking:
        allow = Option("allow_missing", lacking if len(lacking) <= 3 else ["*"])
        raise ReshardError(
            f"{os.fspath(like)} has {listed(lacking)}, which the output lacks, and a loader would fill with random "
            f"numbers; give the folder of the same model, leave {LIKE} out, or allow it by {allow}",
            LIKE,
            allow,
            file=like,
        )
    extra = [name for name in written if name not in known]
    if extra:
        without = Option("select", [f"!{name}" for name in extra[:3]])
        raise ReshardError(
            f"{os.fspath(like)} has no {listed(extra)}, which the output has; leave {LIKE} out, or leave them out by "
            f"{without}",
            LIKE,
            without,
            file=like,
        )


def names_in(like: str | os.PathLike[str], renamed: Mapping[str, str]) -> dict[str, str]:
    """The name that a folder has for each tensor of an output: that before renaming, if it has more of those.

    Parameters
    ----------
    renamed
        Name in the source -> name in the output.
    """
    known = _tensors(like)
    keeps_old = sum(old in known for old in renamed) > sum(new in known for new in renamed.values())
    return {new: old if keeps_old else new for old, new in renamed.items()}


def names_of(like: str | os.PathLike[str]) -> list[str]:
    """What `allow_missing` may name of a folder: its tensors, and all tensors of each layer of its config.json."""
    known = _tensors(like)
    return [*known, *config_names(sibling_config(like) or {}, known)]


def _tensors(like: str | os.PathLike[str]) -> dict[str, NamedTensor | None]:
    """Tensor -> what it is; None where only the index is there, and no weights."""
    try:
        with open_files(like) as files:
            return {n: NamedTensor(e.shape, str(e.dtype)) for n, e in files.entries.items() if not e.is_text}
    except DistinferError:
        members = members_of(like)
        if members is None or members.listed_in is None or all(map(os.path.exists, members.files)):
            raise
        return dict.fromkeys(members.listed_in)


def _differences(
    written: Mapping[str, NamedTensor], known: Mapping[str, NamedTensor | None]
) -> Iterator[str]:
    for name, here in written.items():
        there = known.get(name)
        if there is None:
            continue
        if here.shape != there.shape:
            yield f"{name} has shape {list(there.shape)} there, but {list(here.shape)} in the output"
        elif kind_of_dtype(here.dtype) != kind_of_dtype(there.dtype):
            yield f"{name} is {there.dtype} there, but {here.dtype} in the output"
