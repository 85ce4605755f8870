"""The model map: memory, rows, columns and groups are as plain counting has them, and everything is readable."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.reshard import plan_reshard
from distinfer_lab.rules import Rules, read_rules
from distinfer_lab.views.drawing import STORED_BYTES, stored
from distinfer_lab.views.models import held_by_layouts, held_by_plan, modelmap_svg
from distinfer_lab.views.models.groups import groups_of, rows_held
from distinfer_lab.views.models.inventory import memory
from distinfer_lab.views.models.sheet import sheet_of
from distinfer_lab.views.models.table import table_of
from tests.strategies import any_layouts, examples
from tests.views.reading import collisions, spills, words

PARTS = ("a.weight", "b.weight", "experts.0.w", "experts.1.w", "norm.weight")


def llama(layers=32, hidden=4096, inner=11008, rows=32000):
    """The names and shapes of a model's tensors."""
    shapes = {"model.embed_tokens.weight": (rows, hidden)}
    for i in range(layers):
        block = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (hidden // 4, hidden),
            "self_attn.v_proj": (hidden // 4, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in block.items()}
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (rows, hidden)}


def ruled(shapes, **mesh):
    layers = sum("q_proj" in name for name in shapes)
    config = {"model_type": "llama", "num_hidden_layers": layers, "num_attention_heads": 32}
    config |= {"num_key_value_heads": 8, "hidden_size": 4096, "head_dim": 128, "intermediate_size": 11008}
    return Rules(Mesh(**mesh), read_rules("llama"), config).strategy(shapes)


@st.composite
def models(draw):
    """Layers of some tensors, some tensors of none, each with any layout; and both sides' layouts."""
    names = [
        f"layers.{i}.{part}"
        for i in range(draw(st.integers(0, 3)))
        for part in draw(st.sets(st.sampled_from(PARTS), min_size=1))
    ]
    names += draw(st.sets(st.sampled_from(["embed.weight", "head.weight", "final_norm.weight"])))
    if not names:
        names = ["w"]
    shapes = {n: tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))) for n in names}
    sides = [Strategy({n: draw(any_layouts(s)) for n, s in shapes.items()}, shapes) for _ in range(2)]
    return shapes, *sides


def counted(strategy, shapes, itemsize):
    """Bytes of each rank, box by box."""
    out = np.zeros(strategy.ranks, np.int64)
    for name, layout in strategy.items():
        regions = layout.regions(shapes[name])
        for rank, box in zip(regions.ranks.tolist(), regions.boxes.tolist(), strict=True):
            size = itemsize
            for start, stop in box:
                size *= max(stop - start, 0)
            out[rank] += size
    return out.tolist()


@settings(max_examples=examples(200))
@given(models())
def test_memory_rows_and_groups_are_as_counted(model):
    """Of a strategy and of both sides of a plan; no tensor is missing or twice, whether drawn or not."""
    shapes, train, infer = model
    plan = plan_reshard(train, infer, dtypes=dict.fromkeys(shapes, np.dtype(np.float32)))
    ranks = plan.src_count, plan.dst_count
    held = held_by_plan(plan)
    assert memory(held, "train", ranks[0]).tolist() == counted(train, shapes, 4)
    assert memory(held, "infer", ranks[1]).tolist() == counted(infer, shapes, 4)
    one = held_by_layouts((n, shapes[n], 4, layout) for n, layout in train.items())
    assert memory(one, "train", ranks[0]).tolist() == counted(train, shapes, 4)

    table = table_of(held, plan.names, ranks)
    found = [name for row in table.rows for cell in row.cells.values() for name in cell.names]
    assert len(found) == len(set(found)) == len(shapes) - table.apart[0]
    sheet = sheet_of(table)
    seen = [c for row in table.rows for n, c in row.cells.items() if not row.stack or n in sheet.columns]
    assert sheet.hidden == (
        len(shapes) - sum(len(cell.names) for cell in seen),
        4 * sum(int(np.prod(shape)) for shape in shapes.values()) - sum(cell.nbytes for cell in seen),
    )
    for side, strategy in enumerate((train, infer)):
        for group in groups_of(table, side, ranks[side]):
            for rank in group.ranks.tolist():
                for row, holds in zip(table.rows, group.rows.tolist(), strict=True):
                    some = [n for cell in row.cells.values() for n in cell.names]
                    volumes = (
                        int(np.prod(np.maximum(box[:, 1] - box[:, 0], 0)))
                        for n in some
                        for r, box in zip(*strategy[n].regions(shapes[n])[:2], strict=True)
                        if r == rank
                    )
                    assert holds == any(volumes)


@settings(max_examples=examples(200))
@given(models())
def test_nothing_is_clipped_and_no_words_meet(model):
    """With one side or both."""
    shapes, train, infer = model
    plan = plan_reshard(train, infer, dtypes=dict.fromkeys(shapes, np.dtype(np.float32)))
    both = modelmap_svg(held_by_plan(plan), plan.names, (plan.src_count, plan.dst_count), plan=plan)
    held = held_by_layouts((n, shapes[n], 1, layout) for n, layout in train.items())
    one = modelmap_svg(held, list(shapes), (train.ranks, 0), in_bytes=False, lost=[0])
    for svg in (both, one):
        assert float(ET.fromstring(svg).attrib["width"]) <= 760
        assert not spills(svg)
        assert not collisions(svg)


def drawn(train, infer, shapes, **options):
    plan = plan_reshard(train, infer, dtypes=dict.fromkeys(shapes, np.dtype(np.float32)))
    ranks = plan.src_count, plan.dst_count
    return stored(
        lambda tiles: modelmap_svg(
            held_by_plan(plan), plan.names, ranks, plan=plan, max_tiles=tiles, **options
        )
    )


def test_a_llama_in_stages():
    """291 tensors on pp 4 x dp 2 x tp 8 become 16 cards: what the picture says, computed by hand."""
    shapes = llama()
    svg = drawn(ruled(shapes, pp=4, dp=2, tp=8), ruled(shapes, dp=2, tp=8), shapes)
    said = words(svg)
    assert "64 cards in 4 stages become 16 cards that hold every layer" in said
    total = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    assert any(s.startswith(f"291 tensors · {total / 2**30:.1f} GiB · ") for s in said)
    assert {"layers 8–15", "layers 16–23", "layers 24–31, lm_head", "every layer"} <= set(said)
    assert {"q", "o", "gate", "up", "down"} <= set(said)
    assert "65 tensors (1 MiB) too small to be drawn" in said
    assert {"rows cut in 8", "columns cut in 8"} <= set(said)
    assert "whole on its cards" not in said  # the norms are, and they are not drawn
    assert len(svg) <= STORED_BYTES


def test_experts_on_groups_of_cards():
    """Each expert on some cards: how many groups, before and after; and both cuts are drawn where they differ."""
    shapes = {f"layers.{i}.experts.{e}.w1.weight": (64, 64) for i in range(4) for e in range(8)}

    def spread(groups, cut):
        return Strategy(
            {
                n: Layout(Mesh(tp=2), cut, first_ranks=[2 * (int(n.split(".")[3]) * groups // 8)])
                for n in shapes
            },
            shapes,
        )

    said = words(drawn(spread(4, "tp -"), spread(2, "- tp"), shapes))
    assert "experts w1: 8 a layer, on 4 then 2 groups of cards" in said
    assert "upper half: training, lower half: inference" in said
    assert "8 cards become 4 cards" in said


def test_a_thousand_cards_and_sixty_thousand_tensors():
    """Layers that are alike are one row, and several cards are one tile, so that the picture can be stored."""
    shapes = {f"layers.{i // 600}.experts.{i % 600}.w": (64, 64) for i in range(60_000)}
    before = [Layout(Mesh(tp=4), "tp -", first_ranks=[4 * k]) for k in range(256)]
    after = [Layout(Mesh(tp=2), "- tp", first_ranks=[2 * k]) for k in range(32)]
    train = Strategy({n: before[i % 256] for i, n in enumerate(shapes)}, shapes)
    infer = Strategy({n: after[i % 32] for i, n in enumerate(shapes)}, shapes)
    svg = drawn(train, infer, shapes)
    assert len(svg) <= STORED_BYTES
    assert "1,024 cards become 64 cards" in words(svg)


def test_equal_layers_of_a_deep_model_are_one_row():
    """Above 48 layers; the numbers of the first and the last are said."""
    shapes = llama(layers=80, hidden=512, inner=1024, rows=1000)
    strategy = Strategy(
        {n: Layout(Mesh(tp=2), "tp -" if len(s) == 2 else "-") for n, s in shapes.items()}, shapes
    )
    said = words(drawn(strategy, strategy, shapes))
    assert "0–79" in said
    assert "2 cards become 2 cards" in said


def test_states_stand_with_their_parameter_and_lost_ranks_are_crossed_out():
    """Adam's moments of a parameter are in its cell."""
    shapes = {f"{state}layers.{i}.w": (8, 8) for state in ("", "moment1.", "moment2.") for i in range(2)}
    held = held_by_layouts((n, s, 4, Layout(Mesh(tp=2), "tp -")) for n, s in shapes.items())
    table = table_of(held, list(shapes), (2, 0))
    assert [[(c.nbytes, len(c.names)) for c in row.cells.values()] for row in table.rows] == [[(768, 3)]] * 2
    svg = modelmap_svg(held, list(shapes), (2, 0), lost=[1])
    assert "lost" in words(svg)
    assert svg.count('stroke="#d55e00"') == 2  # the card, and the legend's sample
    assert "2 cards hold 2 layers" in words(svg)


@pytest.mark.parametrize("numbers", [[0], [0, 1, 2, 5], [3, 7]])
def test_the_rows_of_a_group_are_ranges(numbers):
    """As layers that one card holds, apart or in a row."""
    shapes = {f"layers.{i}.w": (4, 4) for i in range(8)}
    layouts = {
        n: Layout(Mesh(tp=2), "tp -", first_ranks=[0 if int(n.split(".")[1]) in numbers else 2])
        for n in shapes
    }
    held = held_by_layouts((n, (4, 4), 4, layout) for n, layout in layouts.items())
    table = table_of(held, list(shapes), (4, 0))
    said = rows_held(table, groups_of(table, 0, 4)[0])
    covered = set()
    for first, last in re.findall(r"(\d+)(?:–(\d+))?", said):
        covered |= set(range(int(first), int(last or first) + 1))
    assert covered == set(numbers)
