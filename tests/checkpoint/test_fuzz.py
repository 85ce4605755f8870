"""Untrusted files: whatever is done to a real one, only our errors come out, quickly and in little memory."""

import contextlib
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.errors import DistinferError
from distinfer_lab.formats import open_slice, read_strategy

from ..oracle import ORACLE, case
from ..strategies import examples

CASES = ORACLE / "cases"
SLICES = [
    CASES / "string_entry_4_to_2/src/rank_0/net-0_1.ckpt",
    CASES / "chunked_4_to_2/src/rank_1/net-1_1.ckpt",
    CASES / "crc_4_to_2/src/rank_0/net-0_1.ckpt",
    CASES / "safetensors_8_to_4/src/rank_0/net-0_1.safetensors",
    CASES / "aes_gcm_4_to_2/src/rank_0/net-0_1.ckpt",
    CASES / "aes_cbc_4_to_2/src/rank_0/net-0_1.ckpt",
]
STRATEGIES = [
    CASES / "layout_multi_8_to_4/src_strategy.ckpt",
    CASES / "manual_split_4_to_1/src_strategy.ckpt",
    CASES / "json_strategy_8_to_4/src_strategy.json",
]


@st.composite
def damaged(draw, paths):
    """A real file with bytes flipped, cut out, put in, or its end gone."""
    path = draw(st.sampled_from(paths))
    data = bytearray(path.read_bytes())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.one_of(st.integers(0, min(len(data), 80)), st.integers(0, len(data))))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "truncate"]))
        if kind == "flip" and at < len(data):
            data[at] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=12))
        else:
            del data[at:]
    return path, bytes(data)


for warm in (*SLICES, *STRATEGIES):  # imports on first use are not what is measured
    if "strategy" in warm.name:
        read_strategy(warm).strategy()
    else:
        open_slice(warm, **case(warm.relative_to(CASES).parts[0]).key).close()


def in_bounds(work, size: int) -> None:
    """Run it; only our errors may come, and no more memory than some times the file's size."""
    tracemalloc.start()
    try:
        with contextlib.suppress(DistinferError):
            work()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * size + 400_000


@given(damaged(SLICES))
@settings(max_examples=examples(300))
def test_a_damaged_slice_file_raises_only_our_errors(tmp_path_factory, drawn):
    """Opening it and reading all of it."""
    source, data = drawn
    path: Path = tmp_path_factory.mktemp("fuzz") / source.name
    path.write_bytes(data)
    key = case(source.relative_to(CASES).parts[0]).key

    def work() -> None:
        with open_slice(path, **key) as found:
            for entry in found.entries.values():
                if entry.is_text:
                    found.text(entry.name)
                else:
                    found.read(entry.name)

    in_bounds(work, len(data))


@given(damaged(STRATEGIES))
@settings(max_examples=examples(300))
def test_a_damaged_strategy_file_raises_only_our_errors(tmp_path_factory, drawn):
    """Reading it and making a Strategy of it."""
    source, data = drawn
    path: Path = tmp_path_factory.mktemp("fuzz") / source.name
    path.write_bytes(data)
    in_bounds(lambda: read_strategy(path).strategy(), len(data))


@pytest.mark.parametrize("path", SLICES, ids=lambda p: p.parts[-4])
def test_a_file_cut_anywhere_is_refused_or_says_so(path, tmp_path):
    """No prefix of a real file passes for a whole one, but where a whole number of entries of a .ckpt is left."""
    data = path.read_bytes()
    key = case(path.relative_to(CASES).parts[0]).key
    ends = set()
    if not key and path.suffix == ".ckpt":
        with open_slice(path) as found:
            ends = {p.offset + p.nbytes for e in found.entries.values() for p in e.pieces}
    for length in [*range(0, min(len(data), 200)), *range(200, len(data), 97)]:
        cut = tmp_path / path.name
        cut.write_bytes(data[:length])
        if length in ends:
            continue
        header = int.from_bytes(data[:8], "little") + 8 if path.suffix == ".safetensors" else len(data)
        if length >= header:
            with open_slice(cut, **key) as found:
                assert f"its last {len(data) - length} bytes are missing" in found.cut
            continue
        with pytest.raises(DistinferError, match=r"damaged|no entry|cut|begins|holds"):
            open_slice(cut, **key)
