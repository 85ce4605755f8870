"""Our own ways to write a strategy: JSON, and Python that makes it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.layout import Strategy
from distinfer_lab.layout.dialects.plain import strategy_from_json, strategy_text, strategy_to_json
from tests.strategies import any_layouts

SHAPES = st.lists(st.integers(1, 12), max_size=3).map(tuple)


@st.composite
def any_strategies(draw: st.DrawFn) -> Strategy:
    """Tensors of any names and layouts, some without a shape."""
    names = draw(st.lists(st.text(max_size=4), max_size=3, unique=True))
    shapes = {name: draw(SHAPES) for name in names}
    layouts = {name: draw(any_layouts(shape)) for name, shape in shapes.items()}
    known = {name: shape for name, shape in shapes.items() if draw(st.booleans())}
    strategy = Strategy(layouts, known)
    return Strategy(layouts, known, strategy.ranks + draw(st.integers(0, 2)))


@given(any_strategies())
def test_both_ways_give_the_same_strategy(strategy):
    """Layouts of every kind, shapes where they are known, and the number of ranks."""
    scope: dict[str, Strategy] = {}
    exec(strategy_text(strategy), scope)
    for found in (scope["strategy"], strategy_from_json(json.loads(json.dumps(strategy_to_json(strategy))))):
        assert found == strategy
        assert found.shapes == strategy.shapes
