"""Our own notation of layouts, as JSON: every kind of layout, with names of axes.

    {"ranks": 8,
     "layouts": [{"mesh": {"dp": 2, "tp": 4}, "dims": [[], ["tp"]]}],
     "tensors": {"w": {"shape": [96, 16], "layout": 0}}}

Layouts are listed once, since thousands of tensors share a few. A tensor may also carry its layout
itself. What is not said is even, not fused, from rank 0 on, without optimizer shards.
"""

from collections.abc import Mapping
from typing import Any

from ...errors import LayoutError
from ..layout import Layout
from ..mesh import Mesh
from ..strategy import Strategy

__all__ = ["layout_from_json", "layout_to_json", "strategy_from_json", "strategy_to_json"]

MOST_RANKS = 1 << 22
KEYS = {"mesh", "dims", "optimizer_shards", "sizes", "first_ranks", "split", "fused", "strides"}


def layout_to_json(layout: Layout) -> dict[str, Any]:
    """A layout as JSON can say it.

    Examples
    --------
    >>> layout_to_json(Layout(Mesh(("tp",), (4,)), ((), ("tp",))))
    {'mesh': {'tp': 4}, 'dims': [[], ['tp']]}
    """
    out: dict[str, Any] = {
        "mesh": dict(zip(layout.mesh.axis_names, layout.mesh.axis_sizes, strict=True)),
        "dims": [list(axes) for axes in layout.dims],
    }
    plain = Layout(layout.mesh, layout.dims)
    for name in ("optimizer_shards", "sizes", "first_ranks", "split", "fused", "strides"):
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
        raise LayoutError(f"a layout is an object with mesh and dims, not {found!r:.80}")
    mesh = found["mesh"]
    if not isinstance(mesh, dict) or not all(type(n) is int and 1 <= n <= MOST_RANKS for n in mesh.values()):
        raise LayoutError(f"a mesh is an object of axis names and sizes of 1 or more, not {mesh!r:.80}")
    size = 1
    for n in mesh.values():
        size *= n
    options = {name: _tuples(value) for name, value in found.items() if name not in ("mesh", "dims")}
    try:
        ranks = size * len(options.get("first_ranks", (0,)))
        if ranks > MOST_RANKS:
            raise LayoutError(f"a mesh of {ranks} ranks; at most {MOST_RANKS} are accepted")
        return Layout(Mesh(tuple(mesh), tuple(mesh.values())), _tuples(found["dims"]), **options)
    except (TypeError, ValueError, OverflowError) as err:
        raise LayoutError(f"{found!r:.120} is no layout: {err!s:.200}") from err


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def strategy_to_json(strategy: Strategy) -> dict[str, Any]:
    """A strategy as JSON can say it, each distinct layout once."""
    numbers: dict[Layout, int] = {}
    tensors: dict[str, Any] = {}
    for name, layout in strategy.items():
        tensors[name] = {"layout": numbers.setdefault(layout, len(numbers))}
        if name in strategy.shapes:
            tensors[name]["shape"] = list(strategy.shapes[name])
    return {"ranks": strategy.ranks, "layouts": list(map(layout_to_json, numbers)), "tensors": tensors}


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
                shapes[name] = _shape(item["shape"])
        except LayoutError as err:
            raise LayoutError(f"{name:.200}: {err}") from err
    ranks = found.get("ranks")
    if ranks is not None and not (type(ranks) is int and 1 <= ranks <= MOST_RANKS):
        raise LayoutError(f"ranks={ranks!r:.40} is no number of ranks")
    return Strategy(out, shapes, ranks)


def _layout_of(item: Any, layouts: list[Layout]) -> Layout:
    if not isinstance(item, Mapping) or "layout" not in item:
        raise LayoutError(f'it lacks "layout": {item!r:.80}')
    number = item["layout"]
    if type(number) is not int:
        return layout_from_json(number)
    if not 0 <= number < len(layouts):
        raise LayoutError(f"layout {number} is not one of the {len(layouts)} that are listed")
    return layouts[number]


def _shape(value: Any) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or not all(type(n) is int and 0 <= n < 2**62 for n in value)
        or len(value) > 64
    ):
        raise LayoutError(f"shape {value!r:.60} is no list of sizes")
    return tuple(value)
