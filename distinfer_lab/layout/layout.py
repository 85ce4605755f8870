"""A layout: which box of a tensor each rank holds.

::

    Layout(Mesh(dp=2, tp=4), "- tp")    rows whole, columns sharded by tp, dp replicates

    rank    0       1       2        3         4       5 ...
    box   [:, 0:4][:, 4:8][:, 8:12][:, 12:16][:, 0:4][:, 4:8] ...    of shape (rows, 16)

Whatever the notation a layout came from, planning needs one answer: `regions(shape)`, the boxes
of every rank and where they lie in its shard. All but fused tensors have one box a rank: `boxes(shape)`.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..arguments import checked_on_error
from ..display import Saved
from ..errors import LayoutError, Option
from ..text import printable, shown
from ..untrusted import LARGEST_SIZE, MAX_DIMS, MOST_RANKS, check_shape
from .box import Boxes
from .mesh import Mesh, checked_mesh
from .notation import Dims, Sharding, Sizes, double_quoted, format_sharding, sharding_of, whole_numbers
from .split import SPLITS, Regions, piece_runs, share_rows

__all__ = ["Layout"]

MOST_CELLS = 1 << 19
"""Ranks x fused parts x dims: `regions` takes some 100 bytes for each."""


@checked_on_error
@dataclass(frozen=True, repr=False, init=False)
class Layout(Saved):
    """A mesh and, for each tensor dim, the mesh axes that cut it.

    Parameters
    ----------
    mesh
        The grid of ranks.
    dims
        How the dims are sharded, as text: ``"- tp"``, ``"dp+tp -"``, ``"tp(5,3,2) -"`` (uneven),
        ``"tp[8|4|4] -"`` (fused), ``"tp/2 -"`` (optimizer shards); `notation.py` has the grammar. Or what the
        attribute is: for each tensor dim a tuple of the axes that shard it, most significant first; then sizes,
        fused parts and optimizer shards are given by the parameters of their names. No axis may shard two dims.
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
    split
        How dims without explicit sizes are shared: "even", "torch_chunk" or "gspmd_ceil" (see
        `split.py`).
    fused
        For each dim either None or the sizes of the parts that lie one after another along
        it, each of which is cut by itself: a rank of a fused query, key and value holds a run
        of each. An empty tuple means none.
    strides
        For each mesh axis how far apart in rank its neighbours are, where the mesh is a part
        of a larger grid (the experts of one group of ranks). An empty tuple means row-major.

    Raises
    ------
    LayoutError
        If an axis is unknown or used twice, sizes do not match their dim's parts, a rank
        appears twice, the replicas cannot be cut into groups of `optimizer_shards`, a number
        is not an integer, or the layout is larger than any that is supported.

    Examples
    --------
    >>> layout = Layout(Mesh(dp=2, tp=4), "- tp")
    >>> layout
    Layout(Mesh(dp=2, tp=4), "- tp")
    >>> layout.dims
    ((), ('tp',))
    >>> layout.shard_shape((96, 16))
    (96, 4)
    >>> layout.boxes((96, 16))[5].tolist()
    [[0, 96], [4, 8]]
    >>> qkv = Layout(Mesh(tp=2), "tp[8|4|4]")
    >>> qkv.regions((16,)).boxes[:3].tolist()
    [[[0, 4]], [[8, 10]], [[12, 14]]]
    """

    mesh: Mesh
    dims: Dims
    optimizer_shards: int
    sizes: Sizes
    first_ranks: tuple[int, ...]
    split: str
    fused: Sizes
    strides: tuple[int, ...]

    def __init__(
        self,
        mesh: Mesh,
        dims: str | Sequence[Sequence[str]],
        *,
        optimizer_shards: int = 1,
        sizes: Sequence[Sequence[int] | None] = (),
        first_ranks: Sequence[int] = (0,),
        split: str = "even",
        fused: Sequence[Sequence[int] | None] = (),
        strides: Sequence[int] = (),
    ) -> None:
        fields = {
            **sharding_of(dims, sizes, fused, optimizer_shards)._asdict(),
            "mesh": checked_mesh(mesh),
            "first_ranks": whole_numbers(first_ranks, "first_ranks"),
            "split": split,
            "strides": whole_numbers(strides, "strides"),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        self._check_extent()
        self._check_axes()
        self._check_sizes()
        self._check_ranks()
        self._check_replicas()

    def _check_extent(self) -> None:
        """Refuse what is too large, before anything is allocated or looped over."""
        if self.ndim > MAX_DIMS:
            raise LayoutError(f"a layout of {self.ndim} dims; at most {MAX_DIMS} are supported")
        for word, given in (("sizes", self.sizes), ("fused", self.fused)):
            for dim, sizes in enumerate(given):
                if sizes is not None and sum(map(abs, sizes)) > LARGEST_SIZE:
                    raise LayoutError(f"dim {dim}: {word} {shown(sizes)} are larger than any tensor", dim=dim)
        fused = math.prod(len(parts) for parts in self.fused if parts)
        cells = self.mesh.size * len(self.first_ranks) * fused * max(self.ndim, 1)
        if cells > MOST_CELLS:
            raise LayoutError(
                f"{self.mesh.size} ranks x {len(self.first_ranks)} stages x {shown(fused)} fused parts x {self.ndim} "
                f"dims are {shown(cells)} boxes; at most {MOST_CELLS} are supported"
            )

    def _check_axes(self) -> None:
        used: set[str] = set()
        for axis in (axis for dim in self.dims for axis in dim):
            self.mesh.axis_index(axis)
            if axis in used:
                raise LayoutError(
                    f"axis {axis!r} is used more than once in {shown(self.sharding)}; an axis can shard one dim, once"
                )
            used.add(axis)

    def _check_sizes(self) -> None:
        if self.split not in SPLITS:
            given = Option("split", self.split)
            raise LayoutError(f"{given} is not one of {', '.join(SPLITS)}", given)
        for dim, sizes in enumerate(self.sizes):
            if sizes is not None and (len(sizes) != self.parts[dim] or min(sizes) < 0):
                raise LayoutError(
                    f"dim {dim}: sizes {sizes} for {self.parts[dim]} parts; "
                    "give one size, 0 or more, for each part",
                    dim=dim,
                )

    def _check_ranks(self) -> None:
        if not self.first_ranks or min(self.first_ranks) < 0:
            raise LayoutError(f"first ranks {shown(self.first_ranks)}: give at least one, none below 0")
        if self.strides and (len(self.strides) != len(self.mesh.axis_sizes) or min(self.strides) < 0):
            raise LayoutError(
                f"strides {shown(self.strides)} for {self.mesh!r}; give one, 0 or more, for each axis"
            )
        if self.last_rank >= MOST_RANKS:
            raise LayoutError(
                f"the layout reaches rank {shown(self.last_rank)}; ranks up to {MOST_RANKS - 1} are supported"
            )
        starts = sorted(self.first_ranks)
        gaps = (second - first for first, second in pairwise(starts))
        if self.strides or any(gap < self.mesh.size for gap in gaps):
            ranks, counts = np.unique(self.ranks, return_counts=True)
            if (counts > 1).any():
                raise LayoutError(
                    f"{self.describe_ranks()}: rank {ranks[counts > 1][0]} is there twice; meshes of "
                    f"{self.mesh.size} ranks that begin at ranks {shown(self.first_ranks)} overlap"
                )

    def _check_replicas(self) -> None:
        replicas = self.mesh.size // math.prod(self.parts)
        if self.optimizer_shards < 1 or replicas % self.optimizer_shards:
            given = Option("optimizer_shards", self.optimizer_shards)
            raise LayoutError(
                f"{given} does not divide the {replicas} equal shards of each part; use a divisor of {replicas}",
                given,
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
    def last_rank(self) -> int:
        """The highest rank that holds a shard."""
        strides = self.strides or (1,)
        sizes = self.mesh.axis_sizes if self.strides else (self.mesh.size,)
        last = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        return max(self.first_ranks) + last

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """The ranks that hold a shard, int64, in the order of `boxes()`."""
        grid = np.arange(self.mesh.size, dtype=np.int64)
        if self.strides:
            grid = self.mesh.coordinates() @ np.array(self.strides, np.int64)
        out: NDArray[np.int64] = np.add.outer(np.array(self.first_ranks, np.int64), grid).ravel()
        out.setflags(write=False)
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
            If the number of dims disagrees, a dim cannot be cut as the layout says, or the
            layout is fused and has several boxes a rank.
        """
        if self.fused:
            raise LayoutError(f"{self!r}: a rank of a fused layout holds several boxes; use regions()")
        return self.regions(shape).boxes

    def regions(self, shape: Sequence[int]) -> Regions:
        """The boxes of every holding rank, and where they lie in its shard, in elements.

        Parameters
        ----------
        shape
            The full shape of the tensor.

        Raises
        ------
        LayoutError
            If the number of dims disagrees, or a dim cannot be cut as the layout says.
        """
        if len(shape) != self.ndim:
            raise LayoutError(
                f"a layout of {self.ndim} dims for a tensor of {len(shape)} dims, shape {tuple(shape)}"
            )
        try:
            check_shape(shape, "the shape")
        except ValueError as err:
            raise LayoutError(str(err), of=err) from err
        runs = [self._runs(dim, int(n)) for dim, n in enumerate(shape)]
        pieces = self.piece_numbers()
        # Row-major over (rank, run of dim 0, run of dim 1, ...); a dim that is not fused has one run.
        counts = [run.shape[1] for run in runs]
        each = math.prod(counts)
        which = np.indices(counts).reshape(self.ndim, each)
        found = np.zeros((self.mesh.size, each, self.ndim, 3), np.int64)
        for dim, run in enumerate(runs):
            found[:, :, dim] = run[pieces[:, dim]][:, which[dim]]
        if self.optimizer_shards > 1:
            share_rows(found[:, :, 0], self.optimizer_members(), self.optimizer_shards, self.split)
        rows = np.tile(found.reshape(self.mesh.size * each, self.ndim, 3), (len(self.first_ranks), 1, 1))
        return Regions(np.repeat(self.ranks, each), np.ascontiguousarray(rows[..., :2]), rows[..., 2])

    def _runs(self, dim: int, length: int) -> NDArray[np.int64]:
        axes = [self.mesh.axis_size(axis) for axis in self.dims[dim]]
        sizes, fused = (given[dim] if given else None for given in (self.sizes, self.fused))
        try:
            return piece_runs(length, axes, self.split, sizes, fused)
        except LayoutError as err:
            where = f"dim {dim} (cut by {'+'.join(self.dims[dim]) or 'nothing'})"
            raise LayoutError(f"{where} has {err}", of=err, dim=dim) from err

    def shard_shape(self, shape: Sequence[int], rank: int | None = None) -> tuple[int, ...]:
        """The shape of what `rank` holds (the first holder, if no rank is given)."""
        row = 0 if rank is None else self.row_of(rank)
        regions = self.regions(shape)
        each = len(regions.ranks) // len(self.ranks)
        return tuple(regions.ends[row * each : (row + 1) * each].max(axis=0, initial=0).tolist())

    def row_of(self, rank: int) -> int:
        """The row of `ranks` (and of `boxes()`) that belongs to `rank`.

        Raises
        ------
        LayoutError
            If the rank holds nothing of the tensor.
        """
        found = np.flatnonzero(self.ranks == rank)
        if not len(found):
            raise LayoutError(
                f"rank {rank} holds no shard; the ranks that do are {self.describe_ranks()}", rank=rank
            )
        return int(found[0])

    def full_shape(self, shard_shapes: Mapping[int, Sequence[int]]) -> tuple[int, ...]:
        """The shape of the whole tensor, from the shapes of shards (rank -> shape).

        One shard is enough for an even layout; of an uneven one, every piece of a dim is needed.

        Raises
        ------
        LayoutError
            If a shape has not as many dims as the layout, or no shard is given of a piece.
        """
        for shape in shard_shapes.values():
            if len(shape) != self.ndim:
                raise LayoutError(
                    f"a layout of {self.ndim} dims for a shard of {len(shape)} dims, shape {tuple(shape)}"
                )
        return tuple(self._full_length(dim, shard_shapes) for dim in range(self.ndim))

    def _full_length(self, dim: int, shard_shapes: Mapping[int, Sequence[int]]) -> int:
        for given in (self.sizes, self.fused):
            if given and (explicit := given[dim]) is not None:
                return sum(explicit)
        pieces, groups = self.piece_numbers()[:, dim], 1
        if dim == 0:
            groups = self.optimizer_shards
            pieces = pieces * groups + self.optimizer_members()
        count = self.parts[dim] * groups
        if self.split == "even":
            return int(next(iter(shard_shapes.values()))[dim]) * count
        found = {int(pieces[self.row_of(r) % self.mesh.size]): int(s[dim]) for r, s in shard_shapes.items()}
        if len(found) < count:
            raise LayoutError(
                f"dim {dim}: shards of {len(found)} of its {count} pieces do not give its length", dim=dim
            )
        return sum(found.values())

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

    @property
    def pattern(self) -> tuple[Hashable, ...]:
        """What is equal in two layouts that differ in the rank at which they begin, and in nothing else."""
        first = self.first_ranks[0]
        others = tuple(r - first for r in self.first_ranks[1:])
        return (
            *(self.mesh.axis_names, self.mesh.axis_sizes, self.dims, self.optimizer_shards),
            *(self.sizes, self.split, self.fused, self.strides, others),
        )

    def describe_ranks(self) -> str:
        """The holding ranks as text: "0..7", or "0..3, 5, 8..11"."""
        grids = self.ranks.reshape(len(self.first_ranks), -1)
        step = f" by strides {self.strides}" if self.strides else ""
        runs = (f"{g.min()}..{g.max()}" if g.min() < g.max() else f"{g.min()}" for g in grids)
        return ", ".join(run + step for run in runs)

    @classmethod
    def replicated(cls, ranks: int, ndim: int) -> "Layout":
        """The layout in which each of `ranks` ranks holds the whole tensor."""
        return cls(Mesh(a=ranks), ((),) * ndim)

    @property
    def sharding(self) -> str:
        """How the dims are sharded, in the notation: ``"- tp"`` for rows whole and columns sharded by tp.

        Examples
        --------
        >>> Layout(Mesh(dp=2, tp=4), "- tp", optimizer_shards=2).sharding
        '-/2 tp'
        """
        return format_sharding(Sharding(self.dims, self.sizes, self.fused, self.optimizer_shards))

    def describe_cut(self) -> str:
        """How the dims are sharded, and on which ranks where those do not begin at 0, for a line of text."""
        words = [self.sharding or "(no dims)"]
        if self.split != "even":
            words.append(f"split={self.split}")
        if self.first_ranks != (0,) or self.strides:
            words.append(f"ranks={self.describe_ranks()}")
        return printable(", ".join(words))

    def __repr__(self) -> str:
        words = [repr(self.mesh), double_quoted(self.sharding)]
        for name in ("first_ranks", "split", "strides"):
            value = getattr(self, name)
            if value != _DEFAULTS[name]:
                words.append(f"{name}={double_quoted(value) if isinstance(value, str) else value}")
        return f"Layout({', '.join(words)})"


_DEFAULTS: Mapping[str, object] = {"first_ranks": (0,), "split": "even", "strides": ()}
