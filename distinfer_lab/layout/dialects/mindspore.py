"""MindSpore's notation: `dev_matrix` and `tensor_map`, and the tuples of `infer_predict_layout`.

`dev_matrix` is a row-major mesh. `tensor_map[d] = k` cuts tensor dim d by the axis counted from
the RIGHT (0 is the last), -1 leaves it whole; a nested entry cuts one dim by several axes, most
significant first. Imported axes are named a, b, c ... from the left.

::

    dev_matrix [2, 4], tensor_map [-1, 0]   <->   Layout(Mesh(a=2, b=4), "- b")
"""

import math
import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import ArgumentTypeError, LayoutError
from ...text import shown
from ...untrusted import MAX_AXES
from ..layout import Layout
from ..mesh import Mesh
from ..strategy import Strategy

__all__ = [
    "LayoutTuple",
    "MindSporeLayout",
    "from_layout",
    "layout_from_tuple",
    "layout_tuple",
    "strategy_from_tuples",
    "strategy_text",
    "to_layout",
]

TensorMap = tuple[int | tuple[int, ...], ...]
LayoutTuple = tuple[Any, ...]
"""(dev_matrix, tensor_map, slice_shape, field_size, uniform_split, opt_shard_group,
full_shape, slice_shape before optimizer shards, two flags, opt_shard_step, opt_shard_size)."""


class MindSporeLayout(NamedTuple):
    """One parameter's layout as a strategy file holds it."""

    dev_matrix: tuple[int, ...]
    tensor_map: TensorMap
    opt_shard_step: int = 0
    """Distance between neighbouring ranks of an optimizer group."""
    opt_shard_size: int = 0
    """Ranks in an optimizer group; -1 means all that hold equal shards, 0 none."""
    split_sizes: tuple[int, ...] = ()
    """Rows of each slice, where a manual split is uneven."""
    split_offsets: tuple[int, ...] = ()
    """First index that each slice of a manual split serves."""
    field: int = 0
    tensor_shape: tuple[int, ...] | None = None
    """The full shape; JSON files have it, protobuf files have not."""


def _axis_names(count: int) -> tuple[str, ...]:
    letters = string.ascii_lowercase
    return tuple(letters[i] if i < len(letters) else f"a{i}" for i in range(count))


def to_layout(item: MindSporeLayout, stages: Sequence[int] = (0,)) -> Layout:
    """The layout that MindSpore's numbers mean.

    Parameters
    ----------
    item
        The numbers.
    stages
        The pipeline stages that hold the parameter; stage s of n ranks begins at rank s * n.

    Raises
    ------
    LayoutError
        If a map entry names no axis, a size is below 1, or the layout is a field slice.
    """
    if item.field:
        raise LayoutError(
            f"field={item.field}: a field slice of a wide-and-deep embedding is not supported; "
            "save the parameter without field slices (field 0)"
        )
    # One axis more is enough for the mesh to refuse them.
    sizes_of_axes = item.dev_matrix[: MAX_AXES + 1]
    mesh = Mesh.from_axes(_axis_names(len(sizes_of_axes)), sizes_of_axes)
    dims = tuple(_dim_axes(mesh, entry, item.tensor_map) for entry in item.tensor_map)
    sizes: tuple[tuple[int, ...] | None, ...] = ()
    if item.split_sizes:
        sizes = (item.split_sizes, *(None for _ in dims[1:]))
    plain = Layout(mesh, dims, sizes=sizes)
    shards = plain.replicas if item.opt_shard_size == -1 else max(item.opt_shard_size, 1)
    if not dims:
        shards = 1
    first_ranks = tuple(s * mesh.size for s in stages)
    return Layout(mesh, dims, optimizer_shards=shards, sizes=sizes, first_ranks=first_ranks)


def _dim_axes(mesh: Mesh, entry: int | Sequence[int], tensor_map: TensorMap) -> tuple[str, ...]:
    entries = [entry] if isinstance(entry, int) else list(entry)
    axes = []
    for k in entries:
        if k == -1:
            continue
        if not 0 <= k < len(mesh.axis_names):
            raise LayoutError(
                f"tensor_map {shown(list(tensor_map))} has {k}, but dev_matrix {list(mesh.axis_sizes)} has the axes "
                f"0..{len(mesh.axis_names) - 1} counted from the right (-1 means not split)"
            )
        axes.append(mesh.axis_names[-1 - k])
    return tuple(axes)


def from_layout(layout: Layout, shape: Sequence[int] | None = None) -> MindSporeLayout:
    """The numbers by which MindSpore says this layout (its pipeline stages are said by names).

    Raises
    ------
    LayoutError
        If MindSpore cannot say it: explicit sizes of a dim other than the first, uneven or
        fused cuts, or a mesh that is part of a larger grid.
    """
    if layout.split != "even" or layout.fused or layout.strides:
        raise LayoutError(
            f"{layout!r}: MindSpore can only express even sharding, and meshes of consecutive ranks"
        )
    if any(s is not None for s in layout.sizes[1:]):
        raise LayoutError(f"{layout!r}: MindSpore can only express explicit sizes of dim 0")
    last = len(layout.mesh.axis_names) - 1
    entries = [tuple(last - layout.mesh.axis_index(a) for a in dim) for dim in layout.dims]
    if any(len(e) > 1 for e in entries):
        tensor_map: TensorMap = tuple(e or (-1,) for e in entries)
    else:
        tensor_map = tuple(e[0] if e else -1 for e in entries)
    sizes = layout.sizes[0] if layout.sizes and layout.sizes[0] is not None else ()
    step, size = _optimizer_group(layout)
    return MindSporeLayout(
        layout.mesh.axis_sizes,
        tensor_map,
        step,
        size,
        sizes,
        tensor_shape=None if shape is None else tuple(shape),
    )


def _optimizer_group(layout: Layout) -> tuple[int, int]:
    """Step and size of the optimizer groups, as MindSpore numbers them; (0, 0) for none."""
    if layout.optimizer_shards == 1:
        return 0, 0
    shards = layout.shard_numbers()
    holders = (shards == shards[0]).nonzero()[0]
    size = -1 if layout.optimizer_shards == len(holders) else layout.optimizer_shards
    return int(holders[1] - holders[0]), size


def layout_tuple(layout: Layout, shape: Sequence[int]) -> LayoutTuple:
    """The 12 items by which MindSpore 2.x gives one parameter's layout.

    Examples
    --------
    >>> layout_tuple(Layout(Mesh(a=2, b=4), "- b"), (96, 16))
    ([2, 4], [-1, 0], [96, 4], 0, True, '', [96, 16], [96, 4], False, False, 0, 0)
    """
    numbers = from_layout(layout)
    tensor_map = [list(e) if isinstance(e, tuple) else e for e in numbers.tensor_map]
    plain = Layout(layout.mesh, layout.dims, sizes=layout.sizes)
    return (
        list(numbers.dev_matrix),
        tensor_map,
        list(layout.shard_shape(shape)),
        0,
        not layout.sizes,
        "",
        list(shape),
        list(plain.shard_shape(shape)),
        False,
        False,
        numbers.opt_shard_step,
        numbers.opt_shard_size,
    )


def layout_from_tuple(items: Sequence[Any]) -> tuple[Layout, tuple[int, ...]]:
    """The layout and the full shape that a tuple of 4 to 12 items gives.

    Parameters
    ----------
    items
        (dev_matrix, tensor_map, slice_shape, field_size, ...), as `infer_predict_layout` of
        MindSpore 1.3 (6 items) and 2.x (12 items) gives it.

    Raises
    ------
    LayoutError
        If there are fewer than 4 or more than 12 items, or the items contradict each other.
    ArgumentTypeError
        If an item is of the wrong kind.
    """
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise ArgumentTypeError(
            f"a layout is a tuple of 4 to 12 items (dev_matrix, tensor_map, ...), not {items!r}"
        )
    if not 4 <= len(items) <= 12:
        raise LayoutError(
            f"a layout tuple has 4 to 12 items (dev_matrix, tensor_map, slice_shape, field_size, ...), "
            f"but this one has {len(items)}: {tuple(items)!r}"
        )
    dev_matrix = _int_list(items[0], "dev_matrix")
    slice_shape = _int_list(items[2], "slice_shape")
    if items[3]:
        raise LayoutError(f"field_size={items[3]!r}: only 0 is supported (no field slices)")
    size = int(items[11]) if len(items) == 12 else 0
    if len(items) > 5 and items[5] and not size:
        raise LayoutError(f"optimizer group {items[5]!r} comes without its size; give all 12 items")
    full_shape = _int_list(items[6], "full_shape") if len(items) > 6 else None
    tensor_map = _tensor_map(items[1], dev_matrix, slice_shape, full_shape)
    layout = to_layout(MindSporeLayout(dev_matrix, tensor_map, 0, size))
    return layout, layout.full_shape(
        {int(layout.ranks[0]): slice_shape}
    ) if full_shape is None else full_shape


def _int_list(value: Any, what: str) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or not all(
        isinstance(n, int) and not isinstance(n, bool) for n in value
    ):
        raise ArgumentTypeError(f"{what} is a list of integers, not {value!r}")
    return tuple(value)


def _tensor_map(
    value: Any, dev_matrix: tuple[int, ...], slice_shape: tuple[int, ...], full_shape: tuple[int, ...] | None
) -> TensorMap:
    """The map, nested where MindSpore wrote several axes of one dim side by side."""
    if isinstance(value, Sequence) and any(isinstance(e, Sequence) for e in value):
        return tuple(_int_list(e, "tensor_map") if isinstance(e, Sequence) else e for e in value)
    flat = _int_list(value, "tensor_map")
    if len(flat) == len(slice_shape):
        return flat
    if full_shape is None or len(full_shape) != len(slice_shape):
        raise LayoutError(
            f"tensor_map {list(flat)} has {len(flat)} entries for a slice of {len(slice_shape)} dims, "
            f"shape {list(slice_shape)}; give one entry per dim"
        )
    return _regroup(flat, dev_matrix, slice_shape, full_shape)


def _regroup(
    flat: tuple[int, ...],
    dev_matrix: tuple[int, ...],
    slice_shape: tuple[int, ...],
    full_shape: tuple[int, ...],
) -> TensorMap:
    """Give each dim as many of the listed axes as its cut needs, in order."""
    left = list(flat)
    out: list[tuple[int, ...]] = []
    for piece, whole in zip(slice_shape, full_shape, strict=True):
        axes: list[int] = []
        while left and (left[0] != -1 or not axes):
            parts = math.prod(dev_matrix[-1 - k] for k in axes if k != -1)
            if axes and parts * piece >= whole:
                break
            axes.append(left.pop(0))
            if axes[-1] == -1:
                break
        out.append(tuple(axes) or (-1,))
    return tuple(out)


def strategy_from_tuples(layouts: Mapping[str, Sequence[Any]]) -> Strategy:
    """The strategy that a mapping of layout tuples gives, e.g. `dict(infer_predict_layout(...))`.

    Raises
    ------
    ArgumentTypeError
        If it is no mapping, or a key is no string.
    LayoutError
        If a tuple does not say a layout; the text names the parameter.
    """
    if not isinstance(layouts, Mapping):
        raise ArgumentTypeError(
            f"a predict strategy maps parameter names to layout tuples; this is {layouts!r}"
        )
    out: dict[str, Layout] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, items in layouts.items():
        if not isinstance(name, str):
            raise ArgumentTypeError(f"a predict strategy's keys are parameter names, not {name!r}")
        try:
            out[name], shapes[name] = layout_from_tuple(items)
        except (LayoutError, ArgumentTypeError) as err:
            raise err.restated(f"{name}: {err}", parameter=name) from err
    return Strategy(out, shapes)


def strategy_text(strategy: Strategy) -> str:
    """Python code of the mapping that `load_distributed_checkpoint` takes: name -> layout tuple.

    Raises
    ------
    LayoutError
        If a layout cannot be said, or a shape is not known; the text names the parameter.

    Examples
    --------
    >>> tp = Layout(Mesh(tp=4), "- tp")
    >>> print(strategy_text(Strategy({"w": tp}, {"w": (96, 16)})))
    predict_strategy = {
        'w': ([4], [-1, 0], [96, 4], 0, True, '', [96, 16], [96, 4], False, False, 0, 0),
    }
    """
    lines = ["predict_strategy = {"]
    said: dict[tuple[Layout, tuple[int, ...]], LayoutTuple] = {}
    for name, layout in strategy.items():
        if name not in strategy.shapes:
            raise LayoutError(f"{name}: the strategy does not know its shape; give one", parameter=name)
        alike = layout, strategy.shapes[name]
        try:
            if alike not in said:
                said[alike] = layout_tuple(*alike)
        except LayoutError as err:
            raise LayoutError(f"{name}: {err}", of=err, parameter=name) from err
        lines.append(f"    {name!r}: {said[alike]},")
    return "\n".join([*lines, "}"])
