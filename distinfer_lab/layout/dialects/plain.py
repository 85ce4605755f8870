"""Our own layouts as JSON: every kind of layout, with names of axes.

::

    {"ranks": 8,
     "layouts": [{"mesh": {"dp": 2, "tp": 4}, "dims": [[], ["tp"]]}],
     "tensors": {"w": {"shape": [96, 16], "layout": 0}}}

Layouts are listed once, since thousands of tensors share a few. A tensor may also carry its layout
itself. What is not said is even, not fused, from rank 0 on, without optimizer shards.
"""

from collections.abc import Mapping
from typing import Any

from ...errors import LayoutError
from ...text import shown
from ...untrusted import MOST_RANKS, read_int, read_shape
from ..layout import Layout
from ..mesh import Mesh
from ..strategy import Strategy

__all__ = ["layout_from_json", "layout_to_json", "strategy_from_json", "strategy_text", "strategy_to_json"]

OPTIONS = ("optimizer_shards", "sizes", "first_ranks", "split", "fused", "strides")
KEYS = {"mesh", "dims", *OPTIONS}


def layout_to_json(layout: Layout) -> dict[str, Any]:
    """A layout as JSON can say it.

    Examples
    --------
    >>> layout_to_json(Layout(Mesh(tp=4), "- tp"))
    {'mesh': {'tp': 4}, 'dims': [[], ['tp']]}
    """
    out: dict[str, Any] = {
        "mesh": dict(zip(layout.mesh.axis_names, layout.mesh.axis_sizes, strict=True)),
        "dims": [list(axes) for axes in layout.dims],
    }
    plain = Layout(layout.mesh, layout.dims)
    for name in OPTIONS:
        value = getattr(layout, name)
        if value != getattr(plain, name):
            out[name] = value
    return out


def layout_from_json(found: Any) -> Layout:
    """The layout that `layout_to_json` gave.

    Raises
    ------
    LayoutError
        If it is none.
    """
    if not isinstance(found, dict) or not {"mesh", "dims"} <= found.keys() <= KEYS:
        raise LayoutError(f"a layout is an object with mesh and dims, not {shown(found)}")
    mesh, dims = found["mesh"], found["dims"]
    if not isinstance(mesh, dict):
        raise LayoutError(f"a mesh is an object of axis names and sizes, not {shown(mesh)}")
    if not isinstance(dims, list) or not all(_is_list_of(axes, str) for axes in dims):
        raise LayoutError(f"dims are a list of axis names for each dim, not {shown(dims)}")
    try:
        options = {name: _option(name, found[name]) for name in OPTIONS if name in found}
        sizes = tuple(read_int(size, f"axis {shown(axis)}", 1, MOST_RANKS) for axis, size in mesh.items())
        return Layout(Mesh.from_axes(tuple(mesh), sizes), tuple(map(tuple, dims)), **options)
    except ValueError as err:
        raise LayoutError(f"{shown(found)} is not a valid layout: {err}", of=err) from err


def _option(name: str, value: Any) -> Any:
    """A field of a layout, its numbers checked."""
    if name == "optimizer_shards":
        return read_int(value, name, 1, MOST_RANKS)
    if name == "split":
        return value
    if not isinstance(value, list):
        raise LayoutError(f"{name} is {shown(value)}; it should be a list")
    if name in ("first_ranks", "strides"):
        return tuple(read_int(number, name, 0, MOST_RANKS) for number in value)
    return tuple(None if item is None else _sizes(name, item) for item in value)


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise LayoutError(f"{name} has {shown(value)}; it should be a list of sizes, or null")
    return tuple(read_int(size, name) for size in value)


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def strategy_to_json(strategy: Strategy) -> dict[str, Any]:
    """A strategy as JSON can say it, each distinct layout once."""
    numbers: dict[Layout, int] = {}
    number_of: dict[
        int, int
    ] = {}  # by identity: thousands of tensors have one layout, and its hash takes its time
    items: dict[tuple[int, tuple[int, ...] | None], dict[str, Any]] = {}
    tensors: dict[str, Any] = {}
    for name, layout in strategy.items():
        number = number_of.get(id(layout))
        if number is None:
            number = number_of[id(layout)] = numbers.setdefault(layout, len(numbers))
        shape = strategy.shapes.get(name)
        if (number, shape) not in items:
            items[number, shape] = {"layout": number} | ({} if shape is None else {"shape": list(shape)})
        tensors[name] = items[number, shape]
    return {"ranks": strategy.ranks, "layouts": list(map(layout_to_json, numbers)), "tensors": tensors}


def strategy_text(strategy: Strategy) -> str:
    """Python code that makes a strategy, of every kind that there is.

    Examples
    --------
    >>> print(strategy_text(Strategy({"w": Layout(Mesh(tp=4), "- tp")}, {"w": (96, 16)})))
    import distinfer_lab as dl
    <BLANKLINE>
    strategy = dl.Strategy(
        {
            'w': dl.Layout(dl.Mesh(tp=4), "- tp"),
        },
        shapes={
            'w': (96, 16),
        },
        ranks=4,
    )
    """
    layouts = (
        f"        {name!r}: dl.{repr(layout).replace('Layout(Mesh(', 'Layout(dl.Mesh(', 1)},"
        for name, layout in strategy.items()
    )
    shapes = (f"        {name!r}: {shape}," for name, shape in strategy.shapes.items())
    lines = ["import distinfer_lab as dl", "", "strategy = dl.Strategy(", "    {", *layouts, "    },"]
    return "\n".join([*lines, "    shapes={", *shapes, "    },", f"    ranks={strategy.ranks},", ")"])


def strategy_from_json(found: Any) -> Strategy:
    """The strategy that `strategy_to_json` gave.

    Raises
    ------
    LayoutError
        If it is none; the text names the tensor.
    """
    if not isinstance(found, dict) or not isinstance(found.get("tensors"), dict):
        raise LayoutError('a strategy is an object with "tensors": name -> {"shape", "layout"}')
    listed = found.get("layouts", [])
    if not isinstance(listed, list):
        raise LayoutError('"layouts" is a list of layouts')
    layouts = [layout_from_json(item) for item in listed]
    out: dict[str, Layout] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, item in found["tensors"].items():
        try:
            out[name] = _layout_of(item, layouts)
            if "shape" in item:
                shapes[name] = read_shape(item["shape"], "its shape")
        except ValueError as err:
            raise LayoutError(f"{name:.200}: {err}", of=err, parameter=name) from err
    ranks = found.get("ranks")
    try:
        return Strategy(out, shapes, None if ranks is None else read_int(ranks, "ranks", 1, MOST_RANKS))
    except ValueError as err:
        raise LayoutError(str(err), of=err) from err


def _layout_of(item: Any, layouts: list[Layout]) -> Layout:
    if not isinstance(item, Mapping) or "layout" not in item:
        raise LayoutError(f'it lacks "layout": {shown(item)}')
    number = item["layout"]
    if type(number) is not int:
        return layout_from_json(number)
    if not 0 <= number < len(layouts):
        raise LayoutError(f"layout {number} is not one of the {len(layouts)} that are listed")
    return layouts[number]
