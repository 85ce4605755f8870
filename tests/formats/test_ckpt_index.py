"""The quick way through a .ckpt file and the one field by field find the same."""

import random
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.errors import CheckpointError
from distinfer_lab.formats import ckpt, save_slice

from ..strategies import examples


def indexed(data):
    """What a file holds, or that it is refused."""
    try:
        return dict(ckpt.index_ckpt("a.ckpt", lambda at, count: data[at : at + count], len(data)))
    except CheckpointError as err:
        return type(err)


@settings(max_examples=examples(120), deadline=None)
@given(
    st.dictionaries(st.text("abé.", min_size=1, max_size=140), st.integers(0, 9), min_size=1, max_size=6),
    st.sampled_from([7, 1 << 20]),
    st.integers(0, 2),
    st.integers(0, 2**32),
)
def test_both_ways_find_the_same(tmp_path_factory, sizes, chunk_bytes, damages, seed):
    """Whole files and damaged ones, in one message an entry and in several, with texts, scalars and empty tensors."""
    path, draw = tmp_path_factory.mktemp("i") / "a.ckpt", random.Random(seed)
    kinds = [lambda n: np.zeros((n, 2), np.float32), lambda n: np.zeros((), np.int8), lambda n: "text" * n]
    save_slice(
        path, {k: draw.choice(kinds)(n) for k, n in sizes.items()}, chunk_bytes=chunk_bytes, sync=False
    )
    data = bytearray(path.read_bytes())
    for _ in range(damages):
        data[draw.randrange(len(data))] = draw.randrange(256)
    quick = indexed(bytes(data))
    with patch.object(ckpt._Index, "add_common", lambda *args: 0):
        assert indexed(bytes(data)) == quick
    assert damages or list(quick) == list(sizes)
