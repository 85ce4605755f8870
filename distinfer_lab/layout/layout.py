"""A layout: which box of a tensor each rank holds.

    mesh  Mesh(dp=2, tp=4)          dims  ((), ("tp",))
                                          rows whole, columns cut by tp, dp replicates

    rank   0      1      2      3      4      5 ...
    box  [:,0:4][:,4:8][:,8:12][:,12:16][:,0:4][:,4:8] ...

Whatever the notation a layout came from, planning needs one answer: `boxes(shape)`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..display import Displayed
from ..errors import LayoutError
from .box import Boxes
from .mesh import Mesh

__all__ = ["Layout"]


@dataclass(frozen=True, repr=False)
class Layout(Displayed):
    """A mesh and, for each tensor dim, the mesh axes that cut it.

    Parameters
    ----------
    mesh
        The grid of ranks.
    dims
        For each tensor dim the axes that cut it, most significant first; `()` is uncut.
        No axis may cut two dims. A tensor of no dims has `()`.
    optimizer_shards
        Into how many runs of rows dim 0 of a shard is cut further among the ranks that would
        hold equal shards (MindSpore's parallel optimizer, ZeRO): each run of that many
        holders, in rank order, shares one shard. 1 means not at all.
    sizes
        For each dim either None (an even cut) or the explicit size of every piece, in
        elements. An empty tuple means all even.
    first_ranks
        The rank at which the mesh begins. A pipeline stage s of n ranks begins at s * n;
        more than one entry means that several stages hold the tensor alike.

    Raises
    ------
    LayoutError
        If an axis is unknown or used twice, sizes do not match their dim's parts, or the
        replicas cannot be cut into groups of `optimizer_shards`.

    Examples
    --------
    >>> layout = Layout(Mesh(("dp", "tp"), (2, 4)), ((), ("tp",)))
    >>> layout
    Layout(Mesh(dp=2, tp=4), -, tp)
    >>> layout.shard_shape((96, 16))
    (96, 4)
    >>> layout.boxes((96, 16))[5].tolist()
    [[0, 96], [4, 8]]
    """

    mesh: Mesh
    dims: tuple[tuple[str, ...], ...]
    optimizer_shards: int = 1
    sizes: tuple[tuple[int, ...] | None, ...] = ()
    first_ranks: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", tuple(tuple(d) for d in self.dims))
        sizes = tuple(None if s is None else tuple(int(n) for n in s) for s in self.sizes)
        object.__setattr__(self, "sizes", sizes if any(s is not None for s in sizes) else ())
        object.__setattr__(self, "first_ranks", tuple(int(r) for r in self.first_ranks))
        self._check_axes()
        self._check_sizes()
        self._check_ranks()

    def _check_axes(self) -> None:
        used = [axis for dim in self.dims for axis in dim]
        for axis in used:
            self.mesh.axis_index(axis)
            if used.count(axis) > 1:
                raise LayoutError(
                    f"axis {axis!r} cuts more than once in {self.dims}; an axis may cut one dim, once"
                )

    def _check_sizes(self) -> None:
        if self.sizes and len(self.sizes) != self.ndim:
            raise LayoutError(
                f"sizes are given for {len(self.sizes)} dims of a layout of {self.ndim} dims; "
                "give one entry per dim, None where the cut is even"
            )
        for dim, sizes in enumerate(self.sizes):
            if sizes is None:
                continue
            if len(sizes) != self.parts[dim] or min(sizes) < 0:
                raise LayoutError(
                    f"dim {dim}: sizes {sizes} for {self.parts[dim]} parts; "
                    "give one size, 0 or more, for each part"
                )

    def _check_ranks(self) -> None:
        starts = sorted(self.first_ranks)
        if not starts or starts[0] < 0:
            raise LayoutError(f"first ranks {self.first_ranks}: give at least one, none below 0")
        if any(b - a < self.mesh.size for a, b in pairwise(starts)):
            raise LayoutError(
                f"meshes of {self.mesh.size} ranks that begin at ranks {self.first_ranks} overlap"
            )
        replicas = self.mesh.size // math.prod(self.parts)
        if self.optimizer_shards < 1 or replicas % self.optimizer_shards:
            raise LayoutError(
                f"optimizer_shards={self.optimizer_shards} does not divide the {replicas} equal "
                f"shards of each part; use a divisor of {replicas}"
            )
        if self.optimizer_shards > 1 and not self.dims:
            raise LayoutError("a tensor of no dims has no rows for optimizer shards; use optimizer_shards=1")

    @property
    def ndim(self) -> int:
        """The number of tensor dims."""
        return len(self.dims)

    @property
    def parts(self) -> tuple[int, ...]:
        """Into how many pieces each dim is cut by its axes (optimizer shards not counted)."""
        return tuple(math.prod(self.mesh.axis_size(a) for a in dim) for dim in self.dims)

    @property
    def ranks(self) -> NDArray[np.int64]:
        """The ranks that hold a shard, int64, in the order of `boxes()`."""
        grid = np.arange(self.mesh.size, dtype=np.int64)
        out: NDArray[np.int64] = np.add.outer(np.array(self.first_ranks, np.int64), grid).ravel()
        return out

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that cut some dim, in the order of the dims."""
        return tuple(axis for dim in self.dims for axis in dim)

    def piece_numbers(self) -> NDArray[np.int64]:
        """Which piece of each dim every rank of the mesh holds, int64, shape (mesh.size, ndim)."""
        coordinates = self.mesh.coordinates()
        out = np.zeros((self.mesh.size, self.ndim), np.int64)
        for dim, axes in enumerate(self.dims):
            for axis in axes:
                out[:, dim] *= self.mesh.axis_size(axis)
                out[:, dim] += coordinates[:, self.mesh.axis_index(axis)]
        return out

    def shard_numbers(self) -> NDArray[np.int64]:
        """The row-major number of the shard of every rank of the mesh, int64, shape (mesh.size,)."""
        out = np.zeros(self.mesh.size, np.int64)
        for column, parts in zip(self.piece_numbers().T, self.parts, strict=True):
            out = out * parts + column
        return out

    def optimizer_members(self) -> NDArray[np.int64]:
        """The place of every rank of the mesh in its optimizer group, int64, 0 where there is none."""
        shards = self.shard_numbers()
        order = np.argsort(shards, kind="stable")
        replicas = self.mesh.size // math.prod(self.parts)
        members = np.empty(self.mesh.size, np.int64)
        members[order] = np.arange(self.mesh.size) % replicas % self.optimizer_shards
        return members

    def boxes(self, shape: Sequence[int]) -> Boxes:
        """The box of every holding rank, int64, shape (len(ranks), ndim, 2), in elements.

        Parameters
        ----------
        shape
            The full shape of the tensor.

        Raises
        ------
        LayoutError
            If the number of dims disagrees, or a dim cannot be cut as the layout says.
        """
        cuts = self._cut_points(shape)
        pieces = self.piece_numbers()
        out = np.zeros((self.mesh.size, self.ndim, 2), np.int64)
        for dim, points in enumerate(cuts):
            out[:, dim, 0] = points[pieces[:, dim]]
            out[:, dim, 1] = points[pieces[:, dim] + 1]
        if self.optimizer_shards > 1:
            self._cut_rows(out)
        return np.tile(out, (len(self.first_ranks), 1, 1))

    def _cut_points(self, shape: Sequence[int]) -> list[NDArray[np.int64]]:
        if len(shape) != self.ndim:
            raise LayoutError(
                f"a layout of {self.ndim} dims for a tensor of {len(shape)} dims, shape {tuple(shape)}"
            )
        sizes = self.sizes or (None,) * self.ndim
        return [self._cuts_of_dim(d, int(n), sizes[d]) for d, n in enumerate(shape)]

    def _cuts_of_dim(self, dim: int, length: int, sizes: tuple[int, ...] | None) -> NDArray[np.int64]:
        parts = self.parts[dim]
        if sizes is not None:
            if sum(sizes) != length:
                raise LayoutError(
                    f"dim {dim} has {length} elements, but its sizes {sizes} add up to {sum(sizes)}"
                )
            return np.concatenate([[0], np.cumsum(np.array(sizes, np.int64))])
        if length % parts:
            fits = max(n for n in range(1, parts) if length % n == 0)
            raise LayoutError(
                f"dim {dim} has {length} elements, which {parts} cards of axis "
                f"{'+'.join(self.dims[dim])} cannot share evenly; use {fits} parts, or explicit sizes"
            )
        return np.arange(parts + 1, dtype=np.int64) * (length // parts)

    def _cut_rows(self, boxes: Boxes) -> None:
        """Cut dim 0 of equal shards among the members of each optimizer group, in place."""
        rows = boxes[:, 0, 1] - boxes[:, 0, 0]
        if (rows % self.optimizer_shards).any():
            bad = int(rows[rows % self.optimizer_shards != 0][0])
            raise LayoutError(
                f"dim 0 of a shard has {bad} rows, which {self.optimizer_shards} optimizer shards "
                "cannot share evenly; use a divisor of it"
            )
        share = rows // self.optimizer_shards
        boxes[:, 0, 0] += self.optimizer_members() * share
        boxes[:, 0, 1] = boxes[:, 0, 0] + share

    def shard_shape(self, shape: Sequence[int], rank: int | None = None) -> tuple[int, ...]:
        """The shape of what `rank` holds (the first holder, if no rank is given)."""
        boxes = self.boxes(shape)
        row = 0 if rank is None else self.row_of(rank)
        return tuple((boxes[row, :, 1] - boxes[row, :, 0]).tolist())

    def row_of(self, rank: int) -> int:
        """The row of `boxes()` that belongs to `rank`.

        Raises
        ------
        LayoutError
            If the rank holds nothing of the tensor.
        """
        for stage, first in enumerate(self.first_ranks):
            if first <= rank < first + self.mesh.size:
                return stage * self.mesh.size + rank - first
        raise LayoutError(f"rank {rank} holds no shard; the ranks that do are {self.describe_ranks()}")

    def full_shape(self, shard_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the whole tensor, from the shape of any one shard of an even layout."""
        if len(shard_shape) != self.ndim:
            raise LayoutError(
                f"a layout of {self.ndim} dims for a shard of {len(shard_shape)} dims, "
                f"shape {tuple(shard_shape)}"
            )
        sizes = self.sizes or (None,) * self.ndim
        factors = [self.optimizer_shards, *[1] * self.ndim][: self.ndim]
        return tuple(
            sum(explicit) if explicit is not None else int(n) * parts * factor
            for n, parts, factor, explicit in zip(shard_shape, self.parts, factors, sizes, strict=True)
        )

    def replica_ids(self) -> NDArray[np.int64]:
        """For every holding rank which copy of its box it holds, int64; 0 is the primary."""
        key = self.shard_numbers() * self.optimizer_shards + self.optimizer_members()
        keys = np.tile(key, len(self.first_ranks))
        order = np.argsort(keys, kind="stable")
        _, first, counts = np.unique(keys[order], return_index=True, return_counts=True)
        ids = np.empty(len(keys), np.int64)
        ids[order] = np.arange(len(keys)) - np.repeat(first, counts)
        return ids

    @property
    def replicas(self) -> int:
        """How many ranks hold each box."""
        return self.mesh.size // math.prod(self.parts) // self.optimizer_shards * len(self.first_ranks)

    def describe_ranks(self) -> str:
        """The holding ranks in words: "0..7", or "0..3, 8..11"."""
        return ", ".join(f"{r}..{r + self.mesh.size - 1}" for r in self.first_ranks)

    @classmethod
    def replicated(cls, ranks: int, ndim: int) -> "Layout":
        """The layout in which each of `ranks` ranks holds the whole tensor."""
        return cls(Mesh(("a",), (ranks,)), ((),) * ndim)

    def describe_cut(self) -> str:
        """What cuts each dim, in words: "-, tp" for rows whole and columns cut by tp."""
        words = ["+".join(dim) or "-" for dim in self.dims]
        if self.optimizer_shards > 1:
            words.append(f"optimizer_shards={self.optimizer_shards}")
        if self.sizes:
            words.append(f"sizes={self.sizes}")
        if self.first_ranks != (0,):
            words.append(f"ranks={self.describe_ranks()}")
        return ", ".join(words)

    def __repr__(self) -> str:
        return f"Layout({', '.join(filter(None, [repr(self.mesh), self.describe_cut()]))})"
