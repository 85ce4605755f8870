"""Files of which some are encrypted and others are not: no key opens them, so no error may ask for one."""

import re

import numpy as np
import pytest

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.errors import EncryptionError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy

KEY = b"0123456789abcdef"
TWICE = Strategy({"w": Layout(Mesh(dp=2, tp=2), "tp -")}, {"w": (4, 3)})
HALVES = (np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32))


def write(folder, rank, key=None, mode="AES-GCM"):
    path = folder / f"rank_{rank}" / "a.ckpt"
    save_slice(path, {"w": HALVES[rank % 2]}, enc_key=key, enc_mode=mode, sync=False)
    return path


@pytest.mark.parametrize("key", [None, KEY])
def test_some_are_encrypted_and_others_are_not(tmp_path, key):
    """With a key and without one the same is said: which ranks' files are, which are not, and what to do."""
    for rank in range(4):
        write(tmp_path, rank, KEY if rank < 3 else None)
    said = (
        r"rank_0/a.ckpt (rank 0), \S*rank_1/a.ckpt (rank 1), \S*rank_2/a.ckpt (rank 2) are encrypted by AES-GCM, but "
        r"\S*rank_3/a.ckpt (rank 3) is not encrypted: they are not of one save; give files of one save, or leave the "
        "wrong ones out by without=[3], if other ranks hold the same"
    )
    pattern = re.escape(said).replace(re.escape(r"\S*"), r"\S*")
    with pytest.raises(EncryptionError, match=pattern):
        open_checkpoint(tmp_path, TWICE, dec_key=key)
    with open_checkpoint(tmp_path, TWICE, dec_key=KEY, without=[3]) as checkpoint:
        assert set(checkpoint.lost) == {3}


def test_two_modes(tmp_path):
    """An error that named the mode of one file would be answered by that of the other."""
    write(tmp_path, 0, KEY)
    write(tmp_path, 1, KEY, "AES-CBC")
    for mode in ("AES-GCM", "AES-CBC"):
        with pytest.raises(
            EncryptionError,
            match=r"rank 0\) is encrypted by AES-GCM, but \S*1/a.ckpt .* by AES-CBC: they are",
        ):
            open_checkpoint(
                [tmp_path / "rank_0/a.ckpt", tmp_path / "rank_1/a.ckpt"], dec_key=KEY, dec_mode=mode
            )


def test_parts_of_one_rank(tmp_path):
    """Parts of one rank are compared, too; no rank can be left out then."""
    save_slice(tmp_path / "m-1-of-2.ckpt", {"a": HALVES[0]}, enc_key=KEY)
    save_slice(tmp_path / "m-2-of-2.ckpt", {"b": HALVES[0]})
    with pytest.raises(
        EncryptionError, match=r"m-1-of-2\S* \(rank 0\) is encrypted.*give files of one save$"
    ):
        open_checkpoint(tmp_path, dec_key=KEY)


def test_two_keys(tmp_path):
    """A key that opens one rank's file, and not another's, is said to have opened the one."""
    write(tmp_path, 0, KEY)
    write(tmp_path, 1, b"f" * 16)
    with pytest.raises(
        EncryptionError,
        match=r"rank_1/a.ckpt: .*the key is wrong.*; the same key opened \S*rank_0/a.ckpt, so the",
    ):
        open_checkpoint(tmp_path, dec_key=KEY)
