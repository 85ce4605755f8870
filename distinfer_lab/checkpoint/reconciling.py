"""Files and strategy are cross-checked, before a byte of data is read.

::

    files      rank 0  w [4, 3]  step       found: a file out of place, a rank without a file or with another's,
    strategy   w [8, 3], rows cut by tp     a slice of the wrong shape, ranks that disagree on what should be equal
"""

import math
from collections.abc import Collection, Hashable, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

from ..errors import CheckpointError, LayoutError, Option, Remark, listed
from ..formats import Entry, FileIdentity
from ..layout import Layout, Mesh, Regions, Strategy
from ..text import shown
from .checkpoint import Checkpoint
from .holders import Holders
from .record_table import RecordTable
from .records import TensorRecord, followed_parameter, is_state_of
from .sources import Slices

__all__ = ["Reconciliation"]

COUNTERS = (
    "global_step",
    "global_steps",
    "step",
    "step_num",
    "cur_step_num",
    "epoch",
    "epoch_num",
    "cur_epoch_num",
    "iteration",
)
"""Entries of one element that say when a file was saved; MindSpore writes several."""


class Reconciliation:
    """Puts files and strategy against each other.

    Parameters
    ----------
    plain
        Names of the strategy that are no parameters.
    beside
        Where a strategy lies that was not given, as a sentence; "" if none does.
    """

    def __init__(
        self,
        files: tuple[Slices, ...],
        strategy: Strategy,
        plain: Collection[str],
        beside: str = "",
    ) -> None:
        self.beside = f"; {beside}" if beside else ""
        self.files, self.strategy, self.plain = files, strategy, frozenset(plain)
        self._layouts: dict[int, int] = {}
        self._distinct: dict[Layout, int] = {}
        self.lost = {rank for rank, file in enumerate(files) if file.is_lost}
        self.holders = Holders(files)
        identities: dict[FileIdentity, list[int]] = {}
        for rank, file in enumerate(files):
            if len(file.files) == 1:
                identities.setdefault(file.files[0].identity, []).append(rank)
        self.shared = [ranks for ranks in identities.values() if len(ranks) > 1]

    def checkpoint(self) -> Checkpoint:
        """What the files hold, as the strategy has it.

        Raises
        ------
        CheckpointError
            If they do not fit each other.
        """
        tensors = RecordTable()
        texts: dict[str, str] = {}
        unreadable: dict[str, str] = {}
        known: dict[Hashable, int] = {}  # tensors that are alike and right; of all others each is looked at
        for name, form in self.holders.forms():
            alike = self._alike(name, form)
            if alike in known:
                tensors.add_same(name, known[alike])
                continue
            held = self.holders[name]
            text, reason = self._examined(name, held)
            if reason:
                unreadable[name] = reason
            elif text is not None:
                texts[name] = text
            else:
                known[alike] = tensors.add(self._record(name, held))
        self._check_counters(tensors)
        missing, states = self._missing(self.strategy)
        notes = [note for file in self.files for note in file.notes]
        if states:
            notes.append(f"states that the strategy names, and no file holds: {listed(states)}")
        if missing:
            notes.append(f"tensors that the strategy names, and no file holds: {listed(missing)}")
        named = tuple(dict.fromkeys([*missing, *(name for file in self.files for name in file.missing)]))
        return Checkpoint(
            self.files,
            MappingProxyType(tensors),
            MappingProxyType(texts),
            named,
            MappingProxyType(unreadable),
            notes=tuple(notes),
        )

    def _alike(self, name: str, form: int) -> Hashable:
        """What an entry has in common with those of which the same is true: all that is looked at but its name."""
        if not self.strategy:
            return form
        owner = name if name in self.strategy else self._followed(name)
        if owner is None:
            return form
        if owner != name:
            return form, self._stated(owner), self.holders.form_of(owner)
        is_state = followed_parameter(name, self.strategy) is not None
        return form, self._stated(name), is_state, name in self.plain

    def _stated(self, name: str) -> tuple[int, tuple[int, ...] | None]:
        """What the strategy says of a parameter: a number for its layout, and its shape where that is known."""
        layout = self.strategy[name]
        number = self._layouts.get(id(layout))
        if number is None:
            number = self._layouts[id(layout)] = self._distinct.setdefault(layout, len(self._distinct))
        return number, self.strategy.shapes.get(name)

    def _examined(self, name: str, held: Mapping[int, Entry]) -> tuple[str | None, str]:
        """The text of an entry, None if it is a tensor; and why it cannot be read, "" if it can."""
        broken = next((rank for rank, entry in held.items() if entry.problem), None)
        if broken is not None:
            path = self._path(broken, name)
            return None, Remark(f"{path}: {held[broken].problem}", file=path, rank=broken)
        if next(iter(held.values())).is_text:
            return self._text(name, held)
        return None, self._disagreement(name, held)

    def _missing(self, named: Iterable[str]) -> tuple[list[str], list[str]]:
        """Names that no file holds; optimizer states apart, which are often left out when weights are passed on."""
        lacking = [name for name in named if name not in self.holders]
        states = {name for name in lacking if is_state_of(name, self.holders)}
        return [name for name in lacking if name not in states], sorted(states)

    def _check_counters(self, tensors: Mapping[str, TensorRecord]) -> None:
        """Files that count other steps are not of one save."""
        for name in COUNTERS:
            if name not in tensors or math.prod(tensors[name].shape) != 1:
                continue
            seen: dict[bytes, int] = {}
            for rank in self.holders[name]:
                value = self.files[rank].read(name)
                if value.size:  # a layout may leave a rank without the one element
                    seen.setdefault(value.tobytes(), rank)
            if len(seen) > 1:
                one, other, *_ = seen.values()
                values = [self.files[rank].read(name).ravel()[0] for rank in (one, other)]
                first, second = Option("without", [one]), Option("without", [other])
                raise CheckpointError(
                    f"{name} is {values[0]} in {self._path(one, name)} (rank {one}), but {values[1]} in "
                    f"{self._path(other, name)} (rank {other}): files of different steps are never one checkpoint; "
                    f"choose files of one step, or leave the wrong one out by {first} or {second}, "
                    "if others hold the same",
                    first,
                    second,
                    file=self._path(one, name),
                    parameter=name,
                )

    def _path(self, rank: int, name: str) -> str:
        """Where a rank holds an entry."""
        return self.files[rank].path_of(name)

    def _text(self, name: str, held: Mapping[int, Entry]) -> tuple[str, str]:
        """The first text of an entry, and how those of other ranks differ from it; "" if they are equal."""
        first = next(iter(held))
        if not all(entry.is_text for entry in held.values()):
            return "", self._of_two_kinds(name, held)
        found = {rank: self.files[rank].text(name) for rank in held}
        other = next((rank for rank, text in found.items() if text != found[first]), None)
        if other is None:
            return found[first], ""
        here, there = self._path(first, name), self._path(other, name)
        differ = (
            f"its text differs between {here} ({shown(found[first])}) and {there} ({shown(found[other])})"
        )
        if name in COUNTERS:
            raise CheckpointError(
                f"{name}: {differ}, so they are not of one save; choose files of one save",
                parameter=name,
                file=here,
            )
        return found[first], Remark(
            differ, file=here
        )  # such as a host's name: the tensors can be read all the same

    def _of_two_kinds(self, name: str, held: Mapping[int, Entry]) -> str:
        """That an entry is a text of some ranks, but a tensor of others."""
        first, other = (
            next(r for r, entry in held.items() if entry.is_text is kind) for kind in (False, True)
        )
        words = f"it is a tensor in {self._path(first, name)}, but a text in {self._path(other, name)}"
        return Remark(words, file=self._path(first, name))

    def _disagreement(self, name: str, held: Mapping[int, Entry]) -> str:
        """How ranks disagree on a tensor that the others can be read without, as a sentence; "" if they agree."""
        first, one = next(iter(held.items()))
        # Without a strategy slices are no exception: `_whole_shape` asks for one.
        alone = bool(self.strategy) and name not in self.strategy and self._followed(name) is None
        for rank, entry in held.items():
            if entry.is_text:
                return self._of_two_kinds(name, held)
            if entry.dtype == one.dtype and (entry.shape == one.shape or not alone):
                continue
            here, there = self._path(first, name), self._path(rank, name)
            if entry.dtype != one.dtype:
                differ = f"its dtype differs: {one.type_name} in {here}, but {entry.type_name} in {there}"
            else:
                shapes = f"{list(one.shape)} in {here}, but {list(entry.shape)} in {there}"
                differ = f"the strategy has no layout for it, and its shape differs: {shapes}"
            return Remark(differ, file=here)
        return ""

    def _followed(self, name: str) -> str | None:
        """The parameter of the strategy that an entry is a state of, if the files have both."""
        followed = followed_parameter(name, self.strategy)
        return followed if followed is not None and followed in self.holders else None

    def _record(self, name: str, held: Mapping[int, Entry]) -> TensorRecord:
        dtype = next(iter(held.values())).dtype
        if name in self.strategy:
            layout = self.strategy[name]
            shape = self._full_shape(name, layout, held)
            self._check_slices(name, layout, shape, held)
            named = "parameter" if followed_parameter(name, self.strategy) is None else "state"
            return TensorRecord(name, dtype, shape, layout, "plain" if name in self.plain else named)
        followed = self._followed(name)
        if followed is not None:
            layout = self.strategy[followed]
            shape = self._full_shape(followed, layout, self.holders[followed])
            whole = all(entry.shape == shape for entry in held.values())
            if not whole or not layout.dims or _holds_whole(layout, held):
                self._check_slices(name, layout, shape, held)
                return TensorRecord(name, dtype, shape, layout, "state")
        return TensorRecord(name, dtype, self._whole_shape(name, held), _held_whole(held), "plain")

    def _full_shape(self, name: str, layout: Layout, held: Mapping[int, Entry]) -> tuple[int, ...]:
        known = self.strategy.shapes.get(name)
        if known is not None:
            return known
        try:
            return layout.full_shape({r: e.shape for r, e in held.items()})
        except LayoutError as err:
            raise CheckpointError(
                f"{self._path(next(iter(held)), name)}: {name}: {err}; the strategy is of another net",
                of=err,
                file=self._path(next(iter(held)), name),
                parameter=name,
            ) from err

    def _check_slices(
        self, name: str, layout: Layout, shape: tuple[int, ...], held: Mapping[int, Entry]
    ) -> None:
        try:
            regions = layout.regions(shape)
            shapes = regions.shard_shapes(self.strategy.ranks)
        except LayoutError as err:
            raise CheckpointError(
                f"{name}: {err}; the strategy is of another net", of=err, parameter=name
            ) from err
        if self.shared:
            self._check_not_one_file(name, regions)
        wanted = {rank: shapes[rank].tolist() for rank in layout.ranks.tolist()}
        for rank, extent in wanted.items():
            if rank in self.lost:
                continue
            if rank not in held:
                raise CheckpointError(
                    f"{self.files[rank].path} (rank {rank}) has no {name}, though the strategy puts "
                    f"{extent} of it there; is it another rank's file?",
                    file=self.files[rank].path,
                    rank=rank,
                    parameter=name,
                )
            if list(held[rank].shape) != extent:
                raise CheckpointError(
                    f"{self._path(rank, name)}: {name} has shape {list(held[rank].shape)}, but the strategy gives "
                    f"rank {rank} {extent} of {list(shape)}; the file is out of place, or the strategy is another's",
                    file=self._path(rank, name),
                    parameter=name,
                    rank=rank,
                )
        extra = sorted(set(held) - set(wanted))
        if extra:
            raise CheckpointError(
                f"{self._path(extra[0], name)} (rank {extra[0]}) has {name}, though the strategy puts none of it "
                "there; is it another rank's file?",
                file=self._path(extra[0], name),
                rank=extra[0],
                parameter=name,
            )

    def _check_not_one_file(self, name: str, regions: Regions) -> None:
        """Refuse one file, or links to one, for ranks that hold different boxes."""
        for ranks in self.shared:
            boxes = [regions.boxes[regions.ranks == rank].tolist() for rank in ranks]
            other = next((rank for rank, box in zip(ranks, boxes, strict=True) if box != boxes[0]), None)
            if other is not None:
                raise CheckpointError(
                    f"{self.files[ranks[0]].path} and {self.files[other].path} are one file, given for ranks "
                    f"{ranks[0]} and {other}, which hold different parts of {name}; give each its own",
                    file=self.files[ranks[0]].path,
                    parameter=name,
                )

    def _whole_shape(self, name: str, held: Mapping[int, Entry]) -> tuple[int, ...]:
        first = next(iter(held))
        for rank, entry in held.items():
            if entry.shape != held[first].shape:
                raise CheckpointError(
                    f"{name} has shape {list(held[first].shape)} in {self._path(first, name)}, but "
                    f"{list(entry.shape)} in {self._path(rank, name)}; the strategy has no layout for it: "
                    f"give the strategy that the files were saved with{self.beside}",
                    file=self._path(first, name),
                    parameter=name,
                )
        return held[first].shape


def _holds_whole(layout: Layout, held: Collection[int]) -> bool:
    """Whether a parameter's layout cuts nothing, and the ranks that hold it are these: its state is whole like it."""
    uncut = layout.optimizer_shards == 1 and all(parts == 1 for parts in layout.parts)
    return uncut and set(held) == set(layout.ranks.tolist())


def _held_whole(held: Mapping[int, Entry]) -> Layout:
    """Every rank that has the entry holds all of it."""
    return _whole(tuple(sorted(held)), len(next(iter(held.values())).shape))


@lru_cache(maxsize=256)
def _whole(ranks: tuple[int, ...], ndim: int) -> Layout:
    if list(ranks) == list(range(ranks[0], ranks[0] + len(ranks))):
        return Layout(Mesh(repeat=len(ranks)), ((),) * ndim, first_ranks=(ranks[0],))
    return Layout(Mesh(repeat=1), ((),) * ndim, first_ranks=ranks)
