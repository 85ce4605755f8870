"""A short run of the fuzzer, and inputs of which each failed once."""

import json
import struct

import pytest

from distinfer_lab.formats.manifest import sealed

from ..strategies import examples
from .mutations import encode_wire
from .running import Bench, input_of


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with Bench(tmp_path_factory.mktemp("fuzz") / "bench") as made:
        yield made


def test_changed_files_raise_only_our_errors_in_time_and_memory(bench):
    """Of every kind of file; python -m tests.fuzz tries more."""
    for number in range(examples(260)):
        assert bench.run(number, *input_of(number, bench.seeds)) is None


def entry(name, dims, kind, content=b""):
    """One entry of a .ckpt file."""
    tensor = [[1, 0, dim] for dim in dims] + [[2, 2, kind.encode()], [3, 2, content]]
    return encode_wire([[1, 2, [[1, 2, name], [2, 2, tensor]]]])


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def layouts(**layout):
    cut = {"mesh": {"tp": 2}, "dims": [["tp"], []]} | layout
    return json.dumps({"layouts": [cut], "tensors": {"w": {"shape": [8, 8], "layout": 0}}}).encode()


def mindspore(name, **changes):
    item = {"dev_matrix": [8], "field": 0, "opt_weight_shard_size": 0, "opt_weight_shard_step": 0}
    item |= {"tensor_map": [0, -1], "tensor_shape": [64, 32]} | changes
    found = {"current_stage": 1, "parallel_layout_item": {name: item}, "parallel_strategy_item": {}}
    return json.dumps(found).encode()


HALF = b'{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
HALF_TEXT = (
    b'{"__metadata__": {"text:x": "\\ud800"}, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
)
ST, CKPT = "one_safetensors/one.safetensors", "one_ckpt/one.ckpt"
PLAIN, MINDSPORE = "layouts_0/layouts.json", "strategy_json_strategy_8_to_4/src_strategy.json"
MANIFEST, INDEX = "cut/distinfer.json", "hub/model.safetensors.index.json"


def changed(**changes):
    """A change of the first file's entry of a manifest."""

    def change(data):
        found = json.loads(data)
        for key, value in changes.items():
            holder = (
                found["files"][0] if key in ("size", "path", "rank") else found["files"][0]["tensors"]["w"]
            )
            holder[key] = value
        return sealed(found)

    return change


MESSAGES = "strategy_mlp_adam_8_to_4/src_strategy.ckpt"
MILLION_AXES = [
    [1, 2, b"w"],
    [2, 2, [[1, 2, b"\x08\x01" * 10**6], [2, 2, b"\x08\x00"], [5, 0, 0], [6, 0, 0], [7, 0, 0]]],
]

ONCE_FAILED = {
    "a size of 0 that hides 2**63": (CKPT, entry(b"w", (0, 2**63), "Float32")),
    "a dim of -1 as it is written": (CKPT, entry(b"w", (0, 2**64 - 1), "Float32")),
    "a tensor in 50,000 parts": (CKPT, entry(b"w", (50_000,), "UInt8", b"0") * 50_000),
    "64 dims": (CKPT, entry(b"w", (1,) * 64, "Float32", b"0000")),
    "a name that orders a terminal": (CKPT, entry(b"\x1b[2J\x1b]0;x\x07", (1,), "Float32", b"0000")),
    "a length of a name above int64": (CKPT, b"\n\x7f\n\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
    "a shape larger than any array": (
        ST,
        safetensors({"w": {"dtype": "F32", "shape": [0, 2**63 - 1], "data_offsets": [0, 0]}}),
    ),
    "half a byte of a tensor of no dims": (
        ST,
        safetensors({"w": {"dtype": "F4", "shape": [], "data_offsets": [0, 8]}}, b"00000000"),
    ),
    "metadata that is a tensor": (
        ST,
        safetensors({"__metadata__": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"0000"),
    ),
    "half a surrogate pair as a name": (ST, safetensors(HALF, b"0000")),
    "half a surrogate pair as a text": (ST, safetensors(HALF_TEXT, b"0000")),
    "empty messages": (MESSAGES, b"\x08\x01" + b"\x1a\x00" * (1 << 20)),
    "a mesh of a million axes": (MESSAGES, b"\x08\x01" + encode_wire([[3, 2, MILLION_AXES]])),
    "a stage of 5,000 digits": (MINDSPORE, mindspore("9" * 5000 + "-w")),
    "stage 10**30": (MINDSPORE, mindspore("1" + "0" * 30 + "-w")),
    "2**40 ranks": (MINDSPORE, mindspore("w", dev_matrix=[2**20, 2**20])),
    "a tensor_map of 100,000 axes": (MINDSPORE, mindspore("w", tensor_map=[[0] * 100_000, -1])),
    "a rank of 2**63": (PLAIN, layouts(first_ranks=[2**63])),
    "a rank of 2**40": (PLAIN, layouts(first_ranks=[2**40])),
    "optimizer shards of 2.0": (PLAIN, layouts(dims=[[], []], optimizer_shards=2.0)),
    "64 axes": (PLAIN, layouts(mesh={f"a{i}": 1 for i in range(64)}, dims=[[], []])),
    "strides above int64": (PLAIN, layouts(mesh={"a": 4, "tp": 1}, strides=[2**62, 1])),
    "100,000 fused parts on 65,536 ranks": (PLAIN, layouts(mesh={"tp": 65536}, fused=[[1] * 100_000, None])),
    "an infinite size": (MANIFEST, changed(size=float("inf"))),
    "an infinite shape": (MANIFEST, changed(shape=[float("inf")])),
    "a piece at 2**70": (MANIFEST, changed(pieces=[[2**70, 4]])),
    "a piece of 2**60 bytes": (MANIFEST, changed(pieces=[[0, 2**60]])),
    "a path with half a surrogate pair": (MANIFEST, changed(path="\ud800")),
    "rank 7 of 2": (MANIFEST, changed(rank=7)),
    "a file of the index with half a surrogate pair": (
        INDEX,
        b'{"weight_map": {"w": "\\ud800.safetensors"}}',
    ),
    "a name twice": (INDEX, b'{"weight_map": {"w": "a.safetensors", "w": "b.safetensors"}}'),
    "100,000 brackets": (INDEX, b"[" * 100_000),
    "a number of 5,000 digits": (INDEX, b"1" * 5000),
}


@pytest.mark.parametrize(("path", "change"), ONCE_FAILED.values(), ids=ONCE_FAILED.keys())
def test_an_input_that_failed_once_is_refused_or_used(bench, path, change):
    """By this package's errors, in time, in memory, and in characters that a terminal shows."""
    seed = next(seed for seed in bench.seeds if f"{seed.folder.name}/{seed.path}" == path)
    data = change(seed.data) if callable(change) else change
    assert bench.run(0, seed, data) is None
