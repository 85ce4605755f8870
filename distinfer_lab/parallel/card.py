"""One card's view of a program, and how a card runs it.

The cards differ only in what `Communicator` connects them by: sockets between Dask workers, or, in
the serial interpreter, plain assignment in one process. A view holds a card's own steps only,
precomputed, so that a run does little more than call operators.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..comm import Communicator
from ..errors import GraphError
from ..net import Spec, call_local, wrong_result
from .program import AllReduce, Compute, Held, Instruction, Program, Redistribute, ReduceScatter
from .shards import Index, Shards, shard_map
from .steps import Apply, Exchange, Round, Slice, Sum, SumPart, Work

__all__ = [
    "Card",
    "CardRun",
    "CardStep",
    "CardView",
    "Shards",
    "run_card",
    "view_of",
    "wrong_shard",
]

Array = NDArray[Any]
Times = NDArray[np.float64]


class CardStep(NamedTuple):
    """One instruction as one card does it."""

    number: int
    """Of the instruction."""
    output: str
    work: Work
    frees: tuple[str, ...]
    """The values of this card that are dead after this step."""
    collective: int
    """Which of the program's collectives it is; -1 if it sends nothing."""
    most_bytes: int
    """Bytes of working values that are alive now, if they are more than ever before; else -1."""


class Card(Protocol):
    """What a program needs of the card that runs it."""

    @property
    def channels(self) -> Communicator:
        """Connects it to the other cards."""

    def check(self) -> None:
        """Raise if the run is to stop."""

    def count(self, nbytes: int) -> None:
        """Note the bytes of working values that are alive."""


@dataclass(frozen=True)
class CardView:
    """What one card does."""

    rank: int
    steps: tuple[CardStep, ...]

    @property
    def peak_bytes(self) -> int:
        """The most bytes of working values (all but parameters) that are alive at one time."""
        return max((step.most_bytes for step in self.steps), default=0)


class CardRun(NamedTuple):
    """What a card has when it has run its steps."""

    outputs: Shards
    updates: Shards
    """Parameter -> its new shard."""
    sent_bytes: list[int]
    """For each of the program's collectives."""
    times: Times
    """float64, shape (steps, 3): when each began and ended, in seconds since 1970, and how long it waited."""


def view_of(program: Program, rank: int) -> CardView:
    """Make one card's view."""
    sending = {collective.value: i for i, collective in enumerate(program.collectives)}
    alive = {name: _nbytes(program.values[name], rank) for name in program.inputs}
    steps: list[CardStep] = []
    most, now = -1, sum(alive.values())
    unused: list[str] = []
    for number, instruction in enumerate(program.instructions):
        work = work_of(program, instruction, rank)
        unused += [name for name in instruction.frees if work is None]
        if work is None:
            continue
        output = instruction.output
        as_view = isinstance(work, Slice) and not work.copied
        alive[output] = 0 if as_view else _nbytes(program.values[output], rank)
        now += alive[output]
        frees = tuple(name for name in (*unused, *instruction.frees) if name in alive)
        steps.append(
            CardStep(number, output, work, frees, sending.get(output, -1), now if now > most else -1)
        )
        most = max(most, now)
        now -= sum(alive.pop(name) for name in frees)
        unused.clear()
    return CardView(rank, tuple(steps))


def _nbytes(held: Held, rank: int) -> int:
    shape = shard_map(held.layout, held.spec.shape).shapes.get(rank)
    return 0 if shape is None else int(np.prod(shape, dtype=np.int64)) * held.spec.dtype.itemsize


def work_of(program: Program, instruction: Instruction, rank: int) -> Work | None:
    """What a card does for an instruction; None if nothing."""
    if isinstance(instruction, Redistribute):
        return _move(program, instruction, rank)
    source = program.values[instruction.output if isinstance(instruction, Compute) else instruction.inputs[0]]
    if rank not in source.layout.ranks:
        return None
    if isinstance(instruction, Compute):
        return _apply(program, instruction, rank)
    group = instruction.group(source, rank)
    if isinstance(instruction, AllReduce):
        return Sum(instruction.inputs[0], group)
    return SumPart(instruction.inputs[0], group, _parts(program, instruction, rank, group))


def _apply(program: Program, instruction: Compute, rank: int) -> Apply:
    helds = [program.values[name] for name in instruction.inputs]
    op = call_local(
        instruction.op,
        [held.spec for held in helds],
        [held.region(rank) for held in helds],
        program.values[instruction.output].region(rank),
        place=instruction.output,
    )
    return Apply(op, instruction.inputs, instruction.output)


def _parts(
    program: Program, instruction: ReduceScatter, rank: int, group: tuple[int, ...]
) -> tuple[Index, ...]:
    src, dst = program.values[instruction.inputs[0]], program.values[instruction.output]
    held, kept = shard_map(src.layout, src.spec.shape), shard_map(dst.layout, dst.spec.shape)
    return tuple(held.place(rank, kept.boxes[peer][0].whole) for peer in group)


def _move(program: Program, instruction: Redistribute, rank: int) -> Work | None:
    src, dst = program.values[instruction.inputs[0]], program.values[instruction.output]
    old = shard_map(src.layout, src.spec.shape).shapes.get(rank)
    new = shard_map(dst.layout, dst.spec.shape).shapes.get(rank)
    own: list[tuple[Index, Index]] = []
    sends: dict[int, list[Index]] = {}
    receives: dict[int, list[Index]] = {}
    for piece in program.pieces(instruction):
        if piece.sender == piece.receiver == rank:
            own.append((piece.src, piece.dst))
        elif piece.sender == rank:
            sends.setdefault(piece.receiver, []).append(piece.src)
        elif piece.receiver == rank:
            receives.setdefault(piece.sender, []).append(piece.dst)
    if new is None and not sends:
        return None
    name = instruction.inputs[0]
    if not sends and not receives and len(own) == 1 and old is not None:
        return Slice(name, own[0][0], copied=name not in program.params)
    rounds = tuple(_rounds(sends, receives))
    return Exchange(
        name, bool(own or sends), new, dst.spec.dtype, tuple(own), rounds, _is_handed(dst, rank, rounds, own)
    )


def _is_handed(held: Held, rank: int, rounds: Sequence[Round], own: Sequence[object]) -> bool:
    """Whether a card ends with nothing, or with one piece that another card sends."""
    boxes = shard_map(held.layout, held.spec.shape).boxes.get(rank, ())
    return not own and len(rounds) == 1 and len(rounds[0].receives) == len(boxes) <= 1


def _rounds(sends: Mapping[int, list[Index]], receives: Mapping[int, list[Index]]) -> Iterator[Round]:
    """One piece per peer and round; only fused values have several pieces for one peer."""
    for i in range(max(map(len, (*sends.values(), *receives.values())), default=0)):
        yield Round(
            tuple((peer, parts[i]) for peer, parts in sends.items() if i < len(parts)),
            tuple((peer, parts[i]) for peer, parts in receives.items() if i < len(parts)),
        )


def run_card(
    program: Program,
    view: CardView,
    params: Mapping[str, Array],
    inputs: Mapping[str, Array],
    channels: Communicator,
    check: Callable[[], None] = lambda: None,
    count: Callable[[int], None] = lambda nbytes: None,
) -> CardRun:
    """Run one card's steps.

    Parameters
    ----------
    params, inputs
        This card's shards.
    channels
        Connects to the other cards, which run the same program at the same time.
    check
        Called before each step; raises to stop.
    count
        Called with the bytes of working values that are alive, whenever they are more than before.

    Raises
    ------
    GraphError
        If the card lacks a shard that a step reads, or an operator is wrong.
    """
    values: Shards = {name: params[name] for name in program.params if name in params}
    values.update(inputs)
    sent = [0] * len(program.collectives)
    moments, waits = [time.perf_counter()], []
    since_1970 = time.time() - moments[0]
    try:
        for _, output, work, frees, collective, most_bytes in view.steps:
            check()
            before, waited = channels.sent_bytes, channels.waited_seconds
            result = work.run(values, channels)
            if result is not None:
                values[output] = result
            if collective >= 0:
                sent[collective] = channels.sent_bytes - before
            moments.append(time.perf_counter())
            waits.append(channels.waited_seconds - waited)
            if most_bytes >= 0:
                count(most_bytes)
            for name in frees:
                values.pop(name, None)
    except (KeyError, IndexError, TypeError, ValueError) as err:
        reason = _missing(program, values, err) or _unexpected(program, view.rank, values)
        if reason is None:
            raise
        raise reason from err
    outputs = {name: values[name] for name in program.outputs if name in values}
    reason = _unexpected(program, view.rank, outputs)
    if reason is not None:
        raise reason
    updates = {param: values[name] for param, name in program.updates.items() if name in values}
    begun, ended = np.array(moments[:-1]) + since_1970, np.array(moments[1:]) + since_1970
    return CardRun(outputs, updates, sent, np.stack([begun, ended, np.array(waits)], axis=1))


def _missing(program: Program, values: Shards, err: Exception) -> GraphError | None:
    name = err.args[0] if isinstance(err, KeyError) and err.args else None
    if name not in program.values or name in values:
        return None
    return GraphError(
        f"this card holds no shard of {name!r}; load the net's parameters first", parameter=name
    )


def _unexpected(program: Program, rank: int, values: Shards) -> GraphError | None:
    """The error of a shard that is not what the program says, or of one before that is gone."""
    reason = wrong_shard(program, rank, values)
    if reason is None:
        return None
    return GraphError(
        f"on card {rank} an operator is wrong, this one or one before it: {reason}. Call the net on whole arrays, "
        "net(x), where every operator is checked",
        of=reason,
        rank=rank,
    )


def wrong_shard(program: Program, rank: int, values: Shards) -> GraphError | None:
    """The error of the first operator whose shard is not what its `infer` and `rule` say; None if all are."""
    for name, value in values.items():
        spec = _shard_spec(program, name, rank)
        if spec == Spec(value.shape, value.dtype):
            continue
        made = _operator_of(program, name)
        if made is not None:
            given = [_shard_spec(program, one, rank) for one in made.inputs]
            return wrong_result(made.op, given, value, spec, made.output)
    return None


def _shard_spec(program: Program, name: str, rank: int) -> Spec:
    held = program.values[name]
    shape = shard_map(held.layout, held.spec.shape).shapes.get(rank, held.spec.shape)
    return Spec(shape, held.spec.dtype)


def _operator_of(program: Program, name: str) -> Compute | None:
    """The operator whose output became this value, perhaps by way of other cards."""
    made = {instruction.output: instruction for instruction in program.instructions}
    while name in made:
        instruction = made[name]
        if isinstance(instruction, Compute):
            return instruction
        (name,) = instruction.inputs
    return None
