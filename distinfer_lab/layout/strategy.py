"""A strategy: the layout of every parameter, by name."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..arguments import checked_on_error
from ..display import Saved, counted
from ..errors import LayoutError, Option, listed
from ..text import printable
from .box import Boxes, volumes
from .layout import Layout

__all__ = ["Strategy"]


@checked_on_error
class Strategy(Mapping[str, Layout], Saved):
    """Parameter name -> Layout, read-only.

    Parameters
    ----------
    layouts
        The layouts, in any order; the order is kept.
    shapes
        Full shapes, where they are known (a JSON strategy file has them, a protobuf one has
        not; a layout that was inferred from a net has).
    ranks
        The number of ranks of the whole group; by default one more than the highest rank
        that holds something.

    Examples
    --------
    >>> from distinfer_lab.layout import Mesh
    >>> tp = Mesh(tp=4)
    >>> strategy = Strategy({"w": Layout(tp, "- tp"), "b": Layout(tp, "-")}, {"w": (96, 16)})
    >>> strategy
    Strategy of 2 parameters on 4 ranks
      w  [96, 16]  - tp  Mesh(tp=4)
      b  -  Mesh(tp=4)
    """

    def __init__(
        self,
        layouts: Mapping[str, Layout],
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        ranks: int | None = None,
    ) -> None:
        self._layouts = dict(layouts)
        self.shapes: Mapping[str, tuple[int, ...]] = {k: tuple(v) for k, v in (shapes or {}).items()}
        distinct = {id(layout): layout for layout in self._layouts.values()}
        highest = max((layout.last_rank for layout in distinct.values()), default=0)
        self.ranks = highest + 1 if ranks is None else ranks
        if self.ranks <= highest:
            given = Option("ranks", highest + 1)
            raise LayoutError(f"a strategy of {self.ranks} ranks names rank {highest}; give {given}", given)

    def __getitem__(self, name: str) -> Layout:
        return self._layouts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._layouts

    def __iter__(self) -> Iterator[str]:
        return iter(self._layouts)

    def layouts_of(self, names: Iterable[str]) -> list[Layout]:
        """The layouts of these parameters, in order; quick for very many.

        Raises
        ------
        KeyError
            If one is not named.
        """
        return list(map(self._layouts.__getitem__, names))

    def subset(self, names: Iterable[str]) -> "Strategy":
        """The strategy of fewer parameters, on the same ranks.

        Raises
        ------
        KeyError
            If one is not named.
        """
        layouts = {name: self[name] for name in names}
        return Strategy(layouts, {n: self.shapes[n] for n in layouts if n in self.shapes}, self.ranks)

    def __len__(self) -> int:
        return len(self._layouts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Strategy):
            return NotImplemented
        return self._layouts == other._layouts and self.ranks == other.ranks

    __hash__ = None  # type: ignore[assignment]

    def boxes(self, name: str, shape: tuple[int, ...] | None = None) -> Boxes:
        """The boxes of one parameter (see `Layout.boxes`), with its name in any error.

        Raises
        ------
        LayoutError
            If the parameter is not named, its shape is unknown, or the cut does not fit.
        """
        if name not in self:
            raise LayoutError(
                f"{name}: the strategy has no layout for it; it names {listed(self)}", parameter=name
            )
        full = self.shapes.get(name) if shape is None else shape
        if full is None:
            raise LayoutError(f"{name}: the strategy does not know its shape; give one", parameter=name)
        try:
            return self[name].boxes(full)
        except LayoutError as err:
            raise LayoutError(f"{name}: {err}", of=err, parameter=name) from err

    def elements_per_rank(self) -> dict[str, Any]:
        """For each parameter of known shape the number of elements on every rank, int64 (ranks,)."""
        out: dict[str, Any] = {}
        for name in self.shapes:
            found = self[name].regions(self.shapes[name])
            counts = np.bincount(found.ranks, volumes(found.boxes), self.ranks).astype(np.int64)
            out[name] = counts
        return out

    def __repr__(self) -> str:
        lines = [f"Strategy of {counted(len(self), 'parameter')} on {counted(self.ranks, 'rank')}"]
        for name, layout in self.items():
            shape = f"  {list(self.shapes[name])}" if name in self.shapes else ""
            lines.append(f"  {printable(name)}{shape}  {layout.describe_cut()}  {layout.mesh!r}")
        return "\n".join(lines)
