"""Loading: each card its share, names matched only where that is sure, and every misuse named."""

import shutil

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.checkpoint import followed_parameter
from distinfer_lab.errors import (
    ArgumentTypeError,
    CardError,
    CheckpointError,
    CheckpointFileError,
    LayoutError,
)
from distinfer_lab.flow import (
    auto_parallel_context,
    build_searched_strategy,
    load_checkpoint,
    load_distributed_checkpoint,
    load_param_into_net,
    save_checkpoint,
)
from distinfer_lab.flow.sample import SampleNet, create_ckpt_file_list
from distinfer_lab.formats import as_strategy, open_slice, save_slice, write_strategy
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.net import Cell, Parameter, Tensor, ops

from ..oracle import CASES, case


class Holder(Cell):
    """A net that only holds parameters of given shapes and dtypes."""

    def __init__(self, specs):
        super().__init__()
        for i, (name, (shape, dtype)) in enumerate(specs.items()):
            setattr(self, f"p{i}", Parameter(np.zeros(shape, dtype), name=name))

    def construct(self, x):
        return ops.Neg()(x)


@pytest.fixture(scope="module")
def two():
    with CardGroup(2, processes=True) as cards:
        yield cards


@pytest.fixture(scope="module")
def eight():
    with CardGroup(8) as cards:
        yield cards


def group_for(ranks, two, eight):
    return two if ranks <= 2 else eight


@pytest.mark.parametrize("name", CASES)
def test_every_case_of_the_oracle_loads_onto_cards(name, two, eight):
    """As MindSpore was asked to lay it out, and on 2 process cards: every shard is the cut of the truth."""
    found = case(name)
    files = found.folder / "src"
    params = {n: (a.shape, a.dtype) for n, a in found.full.items() if held_by_all(found, n)}
    ranks = found.facts["dst_devices"]
    asked = [(group_for(ranks, two, eight), destination(found, params, ranks))]
    halves = {n: split_in_two(shape) for n, (shape, _) in params.items()}
    asked.append((two, Strategy(halves, {n: s for n, (s, _) in params.items()}, 2)))
    for cards, strategy in asked:
        net = Holder(params)
        result = load_distributed_checkpoint(
            net, files, strategy, found.src_strategy, **found.key, cards=cards, strict_load=True
        )
        dst = strategy or Strategy({n: Layout.replicated(1, len(s)) for n, (s, _) in params.items()})
        for param in params:
            whole = found.full[param]
            boxes = dst[param].boxes(whole.shape).tolist()
            ranks_of = [int(r) for r in dst[param].ranks]
            pulled = cards.pull(placement_of(net, cards), {r: [param] for r in ranks_of})
            for rank, box in zip(ranks_of, boxes, strict=True):
                expected = whole[tuple(slice(a, b) for a, b in box)]
                np.testing.assert_array_equal(pulled[rank][param], expected, strict=True)
            np.testing.assert_array_equal(net.parameters_dict()[param].asnumpy(), whole)
        assert sum(result.held_bytes) == int(result.plan.needed_bytes.sum())


def placement_of(net, cards):
    from distinfer_lab.flow.placing import placed_net

    return placed_net(net, cards).placement


def held_by_all(found, name):
    """Whether the case's source files hold the tensor at all (one case keeps one back)."""
    facts = next(iter(found.facts["src_files"].values()))
    return facts == "encrypted" or any(name in f for f in found.facts["src_files"].values())


def destination(found, params, ranks):
    """The case's destination for all tensors, from case.json; None where it says one card."""
    if found.facts["dst_layouts"] is None:
        return None
    facts = next(iter(found.facts["src_files"].values()))
    layouts = {}
    for name, (shape, _) in params.items():
        followed = followed_parameter(name, found.facts["dst_layouts"])
        layout = found.dst_layout(name)
        whole = facts == "encrypted" or (name in facts and facts[name]["dims"] == list(shape))
        if layout is None and followed and not (whole and name not in found.facts["src_layouts"]):
            layout = found.dst_layout(followed)
        layouts[name] = layout if layout is not None else Layout.replicated(ranks, len(shape))
    return Strategy(layouts, {n: s for n, (s, _) in params.items()}, ranks)


def split_in_two(shape):
    """The last even dim in two halves."""
    mesh = Mesh(tp=2)
    even = [d for d, n in enumerate(shape) if n % 2 == 0 and n]
    return Layout(mesh, tuple(("tp",) if even and d == even[-1] else () for d in range(len(shape))))


ROWS = Strategy({"w": Layout(Mesh(tp=2), "tp -")}, {"w": (4, 3)})
WHOLE = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def folder(tmp_path):
    for rank in range(2):
        save_slice(tmp_path / f"rank_{rank}/a.ckpt", {"w": WHOLE[2 * rank : 2 * rank + 2], "note": "text"})
    return tmp_path


def load(folder, specs, cards, predict=ROWS, train=ROWS, **options):
    net = Holder(specs)
    return net, load_distributed_checkpoint(net, folder, predict, train, cards=cards, **options)


def renamed(strategy, name):
    return Strategy({name: strategy["w"]}, {name: (4, 3)})


@pytest.mark.parametrize("name", ["net.w", "w.value"])
def test_a_name_that_differs_by_a_prefix_or_suffix_is_matched_and_told(folder, two, name):
    """Only when it is the only one, and never when strict."""
    net, result = load(folder, {name: ((4, 3), "float32")}, two, renamed(ROWS, name))
    assert dict(result.renamed) == {name: "w"}
    assert f"{name} was loaded from w" in repr(result)
    np.testing.assert_array_equal(net.p0.asnumpy(), WHOLE)
    with pytest.raises(CheckpointError, match=rf"{name}: the files have no entry for this parameter"):
        load(folder, {name: ((4, 3), "float32")}, two, renamed(ROWS, name), strict_load=True)


def test_names_are_not_guessed(folder, two):
    """Two that are near, two that would take one, and none at all; name_map and allow_missing decide."""
    for rank in range(2):
        values = {"a.w": WHOLE[2 * rank : 2 * rank + 2], "b.w": -WHOLE[2 * rank : 2 * rank + 2]}
        save_slice(folder / f"rank_{rank}/a.ckpt", values)
    both = Strategy(dict.fromkeys(("a.w", "b.w"), ROWS["w"]), dict.fromkeys(("a.w", "b.w"), (4, 3)))
    spec = {"w": ((4, 3), "float32")}
    with pytest.raises(
        CheckpointError, match=r"w: .* several similar ones: a\.w, b\.w; choose one with name_map"
    ):
        load(folder, spec, two, train=both)
    net, _ = load(folder, spec, two, train=both, name_map={"b.w": "w"})
    np.testing.assert_array_equal(net.p0.asnumpy(), -WHOLE)
    with pytest.raises(
        CheckpointError, match=r"x\.a\.w and a\.w would both use|a\.w and x\.a\.w would both use"
    ):
        names = {"a.w": ((4, 3), "float32"), "x.a.w": ((4, 3), "float32")}
        load(folder, names, two, None, train=both)
    lost = {"w": ((4, 3), "float32"), "head": ((2,), "float32")}
    with pytest.raises(CheckpointError, match=r"head: the files have no entry .*allow_missing=\['head'\]"):
        load(folder, lost, two, train=both, name_map={"b.w": "w"})
    with pytest.raises(CheckpointError, match=r"allow_missing=\['haed'\]: no param.*fits it; it has .*head"):
        load(folder, lost, two, train=both, name_map={"b.w": "w"}, allow_missing=["hea*", "haed"])
    _, result = load(folder, lost, two, train=both, name_map={"b.w": "w"}, allow_missing=["hea*"])
    assert result.missing == ("head",)


def test_dtypes_are_converted_within_their_kind(folder, two):
    """float32 to float16 is reported; to an integer is refused; strict converts nothing."""
    net, result = load(folder, {"w": ((4, 3), "float16")}, two)
    assert dict(result.converted) == {"w": "float32"}
    np.testing.assert_array_equal(net.p0.asnumpy(), WHOLE.astype(np.float16), strict=True)
    assert result.held_bytes == (12, 12)
    with pytest.raises(
        CheckpointError, match="w: the net has dtype int32, but the files' w has float32; these are not"
    ):
        load(folder, {"w": ((4, 3), "int32")}, two)
    with pytest.raises(CheckpointError, match="strict_load=False converts it"):
        load(folder, {"w": ((4, 3), "float16")}, two, strict_load=True)


W = {"w": ((4, 3), "float32")}


def test_a_predict_strategy_of_4_to_12_items_is_taken(folder, two):
    """As MindSpore 1.3 and 2.x give them; others are refused by name."""
    items = ([2], [0, -1], [2, 3], 0, True, "", [4, 3], [2, 3], False, False, 0, 0)
    for count in (4, 5, 6, 7, 10, 12):
        _, result = load(folder, W, two, {"w": items[:count]})
        assert result.held_bytes == (24, 24)
    with pytest.raises(LayoutError, match="w: a layout tuple has 4 to 12 items .* but this one has 3"):
        load(folder, W, two, {"w": items[:3]})
    with pytest.raises(ArgumentTypeError, match="predict_strategy=7 should be a PredictLayout, a Strategy"):
        load(folder, W, two, 7)


def test_what_does_not_belong_together_is_named(folder, two):
    """Where the real one returns True and loads nothing, or loads wrong weights."""
    with pytest.raises(
        CheckpointError, match="w: the predict strategy has no layout for this parameter .* names v"
    ):
        load(folder, W, two, Strategy({"v": ROWS["w"]}))
    with pytest.raises(
        CheckpointError, match=r"w: the net has shape \[3, 4\], but the files' w has \[4, 3\]"
    ):
        load(folder, {"w": ((3, 4), "float32")}, two, None)
    with pytest.raises(
        CheckpointError, match=r"w: the predict strategy is for shape \[8, 3\], but the net has \[4"
    ):
        load(folder, W, two, Strategy({"w": ROWS["w"]}, {"w": (8, 3)}))
    with pytest.raises(CheckpointError, match="the strategy is for 2 ranks, but 1 files were given"):
        load([folder / "rank_0/a.ckpt"], W, two)
    with pytest.raises(CheckpointError, match="stands at place 0, where .* belongs by its number"):
        load([folder / "rank_1/a.ckpt", folder / "rank_0/a.ckpt"], W, two)
    with pytest.raises(CheckpointFileError, match=r"gone\.ckpt: No such file"):
        load(folder, W, two, train=folder / "gone.ckpt")
    with pytest.raises(CardError, match=r"shards for 4 cards, but the group has 2; use CardGroup\(4\)"):
        load(folder, W, two, Strategy({"w": Layout(Mesh(tp=4), "tp -")}))
    with pytest.raises(ArgumentTypeError, match="network='net' should be a Cell"):
        load_distributed_checkpoint("net", folder, ROWS, ROWS, cards=two)


def test_swapped_replicas_are_found(trained, two, tmp_path):
    """Equal shapes, no numbers in the paths: only the bytes tell, and they are compared."""
    files = create_ckpt_file_list(trained)
    places = []
    for i, path in enumerate([files[1], files[0], *files[2:]]):
        places.append(tmp_path / f"{i}.ckpt")
        shutil.copy(path, places[-1])
    with pytest.raises(
        CheckpointError, match=r"matmul_weight: rank 0 .* and rank 4 .* should hold equal slices"
    ):
        load_distributed_checkpoint(SampleNet(), places, None, trained / "train_strategy.ckpt", cards=two)


def test_one_file_is_saved_and_loaded_whole(tmp_path):
    """A net, a mapping, a list; texts and numbers; a prefix left out; into a net."""
    net = SampleNet()
    net.weight.set_data(np.arange(96 * 16, dtype=np.float32).reshape(96, 16))
    save_checkpoint(
        net, tmp_path / "net.ckpt", append_dict={"epoch": 3, "rate": 0.5, "note": "text"}, crc_check=True
    )
    found = load_checkpoint(tmp_path / "net.ckpt", crc_check=True, filter_prefix="ra")
    assert found["note"] == "text"
    assert found["epoch"].asnumpy() == 3
    assert "rate" not in found
    other = SampleNet()
    assert load_checkpoint(tmp_path / "net.ckpt", other)["matmul_weight"].shape == (96, 16)
    np.testing.assert_array_equal(other.weight.asnumpy(), net.weight.asnumpy())
    assert load_param_into_net(other, {"v": Tensor([1.0])}) == (["matmul_weight"], ["v"])
    with pytest.raises(
        CheckpointError, match=r"matmul_weight: the net has shape \[96, 16\] and dtype float32, the"
    ):
        load_param_into_net(other, {"matmul_weight": Tensor([1.0])})
    with pytest.raises(ArgumentTypeError, match="save_obj=7 should be a Cell, "):
        save_checkpoint(7, tmp_path / "x.ckpt")
    with pytest.raises(ArgumentTypeError, match=r"each item of a list is a mapping .* not \{'name': 'a'\}"):
        save_checkpoint([{"name": "a"}], tmp_path / "x.ckpt")
    save_checkpoint({"a": np.ones(2, np.float32)}, tmp_path / "a.safetensors", format="safetensors")
    with open_slice(tmp_path / "a.safetensors") as found:
        assert list(found.entries) == ["a"]


def test_a_searched_strategy_is_read(trained):
    """By MindSpore's name, as a Strategy."""
    path = trained / "train_strategy.ckpt"
    assert build_searched_strategy(path) == as_strategy(path)
    with pytest.raises(ValueError, match="needs the name of a strategy file"):
        build_searched_strategy("")


def test_a_strategy_that_was_set_before_is_named(folder, two):
    """With the way out, as a note; one that is given needs none."""
    write_strategy(folder / "train.ckpt", ROWS)
    one = [folder / "rank_0/a.ckpt"]
    with auto_parallel_context(strategy_ckpt_load_file=folder / "train.ckpt"):
        with pytest.raises(CheckpointError, match="the strategy is for 2 ranks") as told:
            load(one, W, two, train=None)
        assert (
            "train.ckpt, set by set_auto_parallel_context(strategy_ckpt_load_file" in told.value.__notes__[0]
        )
        with pytest.raises(CheckpointError) as told:
            load(one, W, two)
    assert not hasattr(told.value, "__notes__")
