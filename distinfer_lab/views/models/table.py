"""A model as a table: a row is a layer, a column is a class of tensors that the layers have in common.

::

                        q    k    v    ...   experts w1
    embed_tokens                                             a tensor of no layer is a row of its own, above the
    layers 0            #    #    #          ########        layers or below them
    layers 1 - 31       #    #    #          ########        layers that are alike are one row
    lm_head
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...display import counted
from ...rules import layer_of, name_in_any_layer
from .inventory import Held, Holders, by_name

__all__ = ["Cell", "Cut", "Row", "Table", "ranks_of", "short_name", "table_of"]

NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
BELOW = re.compile(r"head|norm|ln_f|final|output")
"""Names of tensors that come after the layers, in the usual models."""
MOST_ROWS = 48
MOST_APART = 24
"""Of tensors of no layer so many have a row, the largest."""


class Cut(NamedTuple):
    """How tensors are cut on one side."""

    kind: str
    """"whole", "rows", "columns", or "blocks" of both and more."""
    parts: tuple[int, ...] = ()
    """Into how many parts each dim is cut."""
    groups: int = 1
    """On how many groups of cards the tensors of the cell are, such as experts."""


class Cell(NamedTuple):
    """The tensors of a class in one layer."""

    nbytes: int
    train: Cut | None
    infer: Cut | None
    names: tuple[str, ...]


class Row(NamedTuple):
    """A layer, several that are alike, or a tensor of no layer."""

    stack: str
    """What the names of the layer's tensors begin with; "" for a tensor of no layer."""
    first: int
    last: int
    """The numbers of the first and the last layer; of a tensor of no layer -1."""
    cells: Mapping[str, Cell]
    """By column."""
    holders: tuple[bytes, bytes]
    """Which ranks hold any of it, training and inference, a bit each."""

    @property
    def label(self) -> str:
        """What the row is called."""
        if not self.stack:
            ((column, cell),) = self.cells.items()
            states = len(cell.names) - 1
            more = f" and {counted(states, 'state')}" if states else ""
            return short_name(column) + more
        return f"{self.first}" if self.first == self.last else f"{self.first}–{self.last}"


class Table(NamedTuple):
    """The model."""

    above: tuple[Row, ...]
    layers: tuple[Row, ...]
    below: tuple[Row, ...]
    columns: tuple[str, ...]
    """The classes of tensors of the layers, in the order of their first tensors."""
    apart: tuple[int, int]
    """Number and bytes of the tensors that have no place in it."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """From top to bottom."""
        return (*self.above, *self.layers, *self.below)


def short_name(column: str) -> str:
    """What a class of tensors is called, by the part of its name that says it.

    Examples
    --------
    >>> short_name("model.layers.*.self_attn.q_proj.weight"), short_name("h.*.mlp.experts.*.w1.weight")
    ('q', 'experts w1')
    >>> short_name("lm_head.weight"), short_name("w")
    ('lm_head', 'w')
    """
    parts = [part for part in column.rpartition(".*.")[2].split(".") if part not in ("weight", "kernel")]
    word = parts[-1] if parts else column
    if word == "bias" and len(parts) > 1:
        word = f"{parts[-2]} bias"
    return "experts " * ("experts.*" in column) + (word.removesuffix("_proj") or column)


def table_of(held: Sequence[Held], order: Iterable[str], ranks: tuple[int, int]) -> Table:
    """The table of a model.

    Parameters
    ----------
    held
        Its tensors.
    order
        Their names, in the order of the model.
    ranks
        The number of ranks, training and inference.
    """
    names = by_name(held)
    rows: dict[tuple[str, int], dict[str, list[str]]] = {}
    alone: dict[str, list[str]] = {}
    for name in order:
        parameter = _parameter(name, names)
        layer = layer_of(parameter)
        if layer is None:
            alone.setdefault(parameter, []).append(name)
            continue
        anywhere = name_in_any_layer(parameter)
        row = rows.setdefault((anywhere.partition("*")[0], layer), {})
        row.setdefault(NUMBER.sub("*", anywhere), []).append(name)
    layers = [_row(stack, n, cells, names, ranks) for (stack, n), cells in sorted(rows.items())]
    if len(layers) > MOST_ROWS:
        layers = _folded(layers)
    sizes = {name: sum(names[one].nbytes for one in some) for name, some in alone.items()}
    # Beside layers a small vector is not worth a row, nor is a counter beside matrices.
    wide = max((sum(c.nbytes for c in row.cells.values()) for row in layers), default=0)
    least = wide / 50 or max(sizes.values(), default=0) / 100
    largest = set(sorted(sizes, key=lambda name: -sizes[name])[:MOST_APART])
    shown = [name for name in alone if name in largest and sizes[name] >= least]
    tensors = [_row("", -1, {name: alone[name]}, names, ranks) for name in shown]
    split = [bool(layers) and bool(BELOW.search(name)) for name in shown]
    apart = [name for parameter, some in alone.items() if parameter not in shown for name in some]
    return Table(
        tuple(row for row, below in zip(tensors, split, strict=True) if not below),
        tuple(layers),
        tuple(row for row, below in zip(tensors, split, strict=True) if below),
        tuple(dict.fromkeys(column for row in layers for column in row.cells)),
        (len(apart), sum(names[name].nbytes for name in apart)),
    )


def _parameter(name: str, names: Mapping[str, Held]) -> str:
    """The parameter whose state a tensor is, such as "moments.w" of "w"; else itself."""
    inner = name
    while "." in inner:
        inner = inner.partition(".")[2]
        if inner in names:
            return inner
    return name


def _row(
    stack: str, layer: int, cells: Mapping[str, list[str]], names: Mapping[str, Held], ranks: tuple[int, int]
) -> Row:
    bits = [np.zeros(count, bool) for count in ranks]
    found = {}
    for column, some in cells.items():
        held = list({id(names[name]): names[name] for name in some}.values())
        for bit, side in zip(bits, ("train", "infer"), strict=True):
            for one in held:
                holders: Holders | None = getattr(one, side)
                if holders is not None:
                    bit[holders.ranks] = True
        found[column] = Cell(
            sum(names[name].nbytes for name in some),
            _cut([one.train for one in held]),
            _cut([one.infer for one in held]),
            tuple(some),
        )
    return Row(stack, layer, layer, found, (bits[0].tobytes(), bits[1].tobytes()))


def _cut(sides: Sequence[Holders | None]) -> Cut | None:
    """How the tensors of one cell are cut."""
    some = [one for one in sides if one is not None]
    if not some:
        return None
    parts = max((one.parts for one in some), key=lambda parts: max(parts, default=1))
    groups = len({one.ranks.tobytes() for one in some})
    cut = [d for d, n in enumerate(parts) if n > 1]
    if not cut:
        return Cut("whole", (), groups)
    if len(cut) > 1:
        return Cut("blocks", parts, groups)
    return Cut("columns" if cut[0] == len(parts) - 1 and len(parts) > 1 else "rows", parts, groups)


def _folded(rows: Sequence[Row]) -> list[Row]:
    """Neighbors that are alike as one row."""
    out: list[Row] = []
    for row in rows:
        if out and _alike(out[-1], row):
            out[-1] = out[-1]._replace(last=row.last)
        else:
            out.append(row)
    return out


def _alike(one: Row, other: Row) -> bool:
    return (
        (one.stack, one.holders) == (other.stack, other.holders)
        and one.cells.keys() == other.cells.keys()
        and all(one.cells[c][:3] == other.cells[c][:3] for c in one.cells)
    )


def ranks_of(row: Row, side: int) -> NDArray[np.bool_]:
    """Whether each rank of a side (0 training, 1 inference) holds any of a row, bool, shape (ranks,)."""
    return np.frombuffer(row.holders[side], bool)
