"""The predict layout: what `infer_predict_layout` gives and `load_distributed_checkpoint` takes."""

from collections.abc import Iterator, Mapping

from ..display import Displayed, counted
from ..errors import LayoutError
from ..layout import Layout, Strategy
from ..layout.dialects.mindspore import LayoutTuple, layout_tuple
from ..parallel import Sharding
from ..text import printable

__all__ = ["PredictLayout"]


class PredictLayout(Mapping[str, LayoutTuple], Displayed):
    """Parameter -> MindSpore's tuple of 12 items; `dict(layout)` gives plain tuples.

    Attributes
    ----------
    strategy : Strategy
        The same as layouts.
    inputs : Mapping[str, Layout]
        The net's inputs, as MindSpore lays them out.
    """

    def __init__(self, sharding: Sharding, shapes: Mapping[str, tuple[int, ...]]) -> None:
        found = sharding.strategy
        # A parameter that this net never reads is whole on every card.
        layouts = {
            name: found[name] if name in found else Layout.replicated(found.ranks, len(shape))
            for name, shape in shapes.items()
        }
        self.strategy = Strategy(layouts, shapes, found.ranks)
        self.inputs: Mapping[str, Layout] = dict(sharding.inputs)

    def __getitem__(self, name: str) -> LayoutTuple:
        return layout_tuple(self.strategy[name], self.strategy.shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.strategy)

    def __len__(self) -> int:
        return len(self.strategy)

    def __repr__(self) -> str:
        lines = [
            f"PredictLayout of {counted(len(self), 'parameter')} on {counted(self.strategy.ranks, 'card')}"
        ]
        for name, layout in self.strategy.items():
            shape = self.strategy.shapes[name]
            lines.append(
                f"  {printable(name)}  {list(shape)} -> {list(layout.shard_shape(shape))} a card  "
                f"{layout.describe_cut()}  {self._noted(name)}"
            )
        return "\n".join(lines)

    def _noted(self, name: str) -> str:
        """The layout in MindSpore's notation, which cannot express fused parts and uneven shards."""
        try:
            items = self[name]
        except LayoutError:
            return f"{self.strategy[name].mesh!r}"
        return f"dev_matrix {items[0]} tensor_map {items[1]}"
