"""The settings of the flow, by MindSpore's names: one frozen record, replaced as a whole.

::

    set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)
    with auto_parallel_context(strategy_ckpt_load_file="train_strategy.ckpt"):
        ...                                   # in force inside only

One Python session drives all cards, so the record is shared by all threads of the session. What a `with` block sets
is for its own thread, and for what it has a card group do, so that two steps at once do not mix.
"""

import difflib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Final, TypedDict, Unpack

from ..errors import ArgumentTypeError, ContextError, Option

__all__ = [
    "GRAPH_MODE",
    "PYNATIVE_MODE",
    "ParallelContext",
    "ParallelMode",
    "auto_parallel_context",
    "get_auto_parallel_context",
    "parallel_context",
    "reset_auto_parallel_context",
    "set_auto_parallel_context",
    "set_context",
]

GRAPH_MODE: Final = 0
PYNATIVE_MODE: Final = 1


class ParallelMode:
    """The parallel modes, by MindSpore's names."""

    STAND_ALONE: Final = "stand_alone"
    DATA_PARALLEL: Final = "data_parallel"
    SEMI_AUTO_PARALLEL: Final = "semi_auto_parallel"
    AUTO_PARALLEL: Final = "auto_parallel"

    MODE_LIST: Final = (STAND_ALONE, DATA_PARALLEL, SEMI_AUTO_PARALLEL, AUTO_PARALLEL)


SEARCH_MODES: Final = ("sharding_propagation", "dynamic_programming", "recursive_programming")


class ParallelSettings(TypedDict, total=False):
    """The settings that can be given, see `ParallelContext`."""

    parallel_mode: str
    full_batch: bool
    device_num: int | None
    strategy_ckpt_save_file: str | os.PathLike[str]
    strategy_ckpt_load_file: str | os.PathLike[str]
    search_mode: str
    enable_parallel_optimizer: bool
    gradients_mean: bool
    dataset_strategy: str
    pipeline_stages: int
    pipeline_micro_batches: int


@dataclass(frozen=True)
class ParallelContext:
    """How nets are sharded and where strategy files go.

    Parameters
    ----------
    parallel_mode
        One of `ParallelMode.MODE_LIST`.
    full_batch
        True: every batch given is the whole batch. False: training batches are stacked per
        rank, shape (ranks, batch of a rank, ...), and the layout of a net is for ranks times its
        input's batch.
    device_num
        The number of cards; None means as many as the card group has, which it must equal.
    strategy_ckpt_save_file
        Where training writes its strategy, `.ckpt` (protobuf) or `.json`; "" for nowhere.
    strategy_ckpt_load_file
        The training strategy that operators without a `shard` take theirs from, and that
        `load_distributed_checkpoint` reads by default.
    search_mode
        How auto_parallel finds strategies; all spread the ones that the user has set.
    enable_parallel_optimizer
        Shard replicated parameters and their optimizer states over their replicas in training.
    gradients_mean
        Accepted for MindSpore's scripts: the loss is taken over the whole batch, so that
        gradients are always the mean that one card would compute.
    dataset_strategy
        "data_parallel" or "full_batch": another way to set `full_batch`.
    pipeline_stages
        The number of pipeline stages, each on cards of its own; a cell's `pipeline_stage` is the one it computes on.
        Like the operators' strategies, it counts in the semi-automatic and automatic modes only.
    pipeline_micro_batches
        The number of micro-batches of `predict`: a stage works on one while the next stage works on the one
        before. Training and `generate` take the batch whole: their stages work in turn.

    Raises
    ------
    ContextError
        If a value is not one of those allowed.
    """

    parallel_mode: str = ParallelMode.STAND_ALONE
    full_batch: bool = False
    device_num: int | None = None
    strategy_ckpt_save_file: str = ""
    strategy_ckpt_load_file: str = ""
    search_mode: str = "sharding_propagation"
    enable_parallel_optimizer: bool = False
    gradients_mean: bool = False
    dataset_strategy: str = ""
    pipeline_stages: int = 1
    pipeline_micro_batches: int = 1

    def __post_init__(self) -> None:
        _check_choice("parallel_mode", self.parallel_mode, ParallelMode.MODE_LIST)
        _check_choice("search_mode", self.search_mode, SEARCH_MODES)
        _check_choice("dataset_strategy", self.dataset_strategy, ("", "data_parallel", "full_batch"))
        for name in ("full_batch", "enable_parallel_optimizer", "gradients_mean"):
            if not isinstance(getattr(self, name), bool):
                raise ArgumentTypeError(
                    f"{name} is True or False, not {getattr(self, name)!r}", Option(name, getattr(self, name))
                )
        if self.device_num is not None and not (isinstance(self.device_num, int) and self.device_num >= 1):
            raise ContextError(
                f"device_num is a number of cards, 1 or more, not {self.device_num!r}",
                Option("device_num", self.device_num),
            )
        for name in ("pipeline_stages", "pipeline_micro_batches"):
            number = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ContextError(f"{name} is a number, 1 or more, not {number!r}", Option(name, number))
        for name in ("strategy_ckpt_save_file", "strategy_ckpt_load_file"):
            object.__setattr__(self, name, os.fspath(getattr(self, name)))
        if self.dataset_strategy:
            object.__setattr__(self, "full_batch", self.dataset_strategy == "full_batch")

    @property
    def is_sharded(self) -> bool:
        """Whether nets are sharded by operators' strategies (semi-automatic or automatic)."""
        return self.parallel_mode in (ParallelMode.SEMI_AUTO_PARALLEL, ParallelMode.AUTO_PARALLEL)

    @property
    def stages(self) -> int:
        """The number of pipeline stages: 1 in the modes that do not shard nets."""
        return self.pipeline_stages if self.is_sharded else 1


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        names = ", ".join(repr(a) for a in allowed if a)
        raise ContextError(f"{name}={value!r} is not one of {names}", Option(name, value))


_lock = threading.Lock()
_current = ParallelContext()
_within: ContextVar[ParallelContext | None] = ContextVar("settings of the innermost block", default=None)
"""Those of a `with` block are for its own thread, and for what it has the cards do."""


def parallel_context() -> ParallelContext:
    """The settings in force, as one record."""
    return _within.get() or _current


def _put(change: Callable[[ParallelContext], ParallelContext]) -> None:
    """Replace the settings: those of the innermost block if there is one, else those of all threads."""
    global _current  # noqa: PLW0603  the one place where the flow's state is replaced
    within = _within.get()
    if within is not None:
        _within.set(change(within))
        return
    with _lock:
        _current = change(_current)


def set_auto_parallel_context(**settings: Unpack[ParallelSettings]) -> None:
    """Change the given settings and leave the others (see `ParallelContext` for each).

    Raises
    ------
    ContextError
        If a setting is unknown or a value is not allowed; nothing is changed then.

    Examples
    --------
    >>> set_auto_parallel_context(parallel_mode="semi_auto_parallel", full_batch=True)
    >>> get_auto_parallel_context("full_batch")
    True
    >>> reset_auto_parallel_context()
    """
    known = [f.name for f in fields(ParallelContext)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the settings are {', '.join(known)}"
            raise ContextError(f"there is no setting {name!r}; {hint}", Option(name))
    _put(lambda before: replace(before, **settings))  # type: ignore[arg-type]  # paths become texts there


def get_auto_parallel_context(name: str) -> bool | int | str | None:
    """The value of one setting.

    Raises
    ------
    ContextError
        If there is no such setting.
    """
    if name not in {f.name for f in fields(ParallelContext)}:
        raise ContextError(
            f"there is no setting {name!r}; the settings are "
            f"{', '.join(f.name for f in fields(ParallelContext))}",
            Option(name),
        )
    value: bool | int | str | None = getattr(parallel_context(), name)
    return value


def reset_auto_parallel_context() -> None:
    """Put every setting back to its default."""
    _put(lambda before: ParallelContext())


@contextmanager
def auto_parallel_context(**settings: Unpack[ParallelSettings]) -> Iterator[ParallelContext]:
    """Set for the length of a `with` block, in this thread; settings before it are restored after it.

    They are also in force for what a card group does for the block.
    """
    outer = _within.set(parallel_context())
    try:
        set_auto_parallel_context(**settings)
        yield parallel_context()
    finally:
        _within.reset(outer)


def set_context(**settings: object) -> None:
    """Accepted for MindSpore's scripts (mode, device_target, device_id ...): cards need none of it."""
