"""The misuses that the oracle put to MindSpore, put to us: each an error that names the thing, or done right."""

import json
import re
import shutil

import numpy as np
import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.checkpoint import transform_checkpoints
from distinfer_lab.errors import DistinferError
from distinfer_lab.flow import build_searched_strategy, load_checkpoint, load_distributed_checkpoint
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.net import Cell, Parameter, ops

from ..oracle import ORACLE, case

FOUND = case("string_entry_4_to_2")
ENCRYPTED = case("aes_gcm_4_to_2")
FILES = [FOUND.folder / f"src/rank_{r}/net-{r}_1.ckpt" for r in range(4)]
SECRET = [ENCRYPTED.folder / f"src/rank_{r}/net-{r}_1.ckpt" for r in range(4)]
PREDICT = {"w": ([2], [-1, 0], [16, 4], 0, True, "", [16, 8], [16, 4], False, False, 0, 0)}


class Net(Cell):
    def __init__(self, name="w", shape=(16, 8), dtype="float32"):
        super().__init__()
        self.p = Parameter(np.zeros(shape, dtype), name=name)

    def construct(self, x):
        return ops.MatMul()(x, self.p)


@pytest.fixture(scope="module")
def cards():
    with CardGroup(2) as group:
        yield group


@pytest.fixture
def bad(tmp_path):
    """Files that are empty, junk, cut, of another suffix."""
    (tmp_path / "empty.ckpt").touch()
    (tmp_path / "junk.ckpt").write_bytes(b"junk" * 40)
    (tmp_path / "cut.ckpt").write_bytes(FILES[3].read_bytes()[:100])
    (tmp_path / "bad.json").write_text("{nope")
    (tmp_path / "none.json").write_text(json.dumps({"current_stage": 1, "parallel_layout_item": {}}))
    shutil.copy(FILES[3], tmp_path / "s.ckptx")
    return tmp_path


def rows(n):
    return Strategy({"w": Layout(Mesh(tp=n), "tp -")})


def columns(n):
    return Strategy({"w": Layout(Mesh(tp=n), "- tp")})


def entry(**changes):
    """The predict entry with some of its items changed."""
    names = ("dev", "map", "slice", "field")
    return {"w": tuple(changes.get(n, item) for n, item in zip(names, PREDICT["w"], strict=False))}


def misuses(bad, cards):
    """Name of the oracle's case -> what we do, and the pattern that our text must match."""

    def load(net=None, files=FILES, predict=PREDICT, train=FOUND.src_strategy, **options):
        net = Net() if net is None else net
        return lambda: load_distributed_checkpoint(net, files, predict, train, cards=cards, **options)

    def secret(**options):
        return load(Net("matmul_weight", (32, 16)), SECRET, None, ENCRYPTED.src_strategy, **options)

    def transform(src, dst):
        return lambda: transform_checkpoints(src, bad / "out", "x", FOUND.src_strategy, dst)

    three = [*FILES[:3]]
    return {
        "network is not a Cell": (load("net"), "network='net' should be a Cell"),
        "format unknown": (load(format="pt"), "format='pt' is not 'ckpt' or 'safetensors'"),
        "files None": (
            load(files=None),
            "checkpoint_filenames=None should be a path, a sequence of paths or",
        ),
        "missing file": (load(files=[*three, "/nope.ckpt"]), r"/nope\.ckpt: No such file"),
        "empty file": (load(files=[*three, bad / "empty.ckpt"]), r"empty\.ckpt: the file is empty"),
        "junk file": (
            load(files=[*three, bad / "junk.ckpt"]),
            r"junk\.ckpt: it is a text file, not a checkpoint",
        ),
        "truncated file": (
            load(files=[*three, bad / "cut.ckpt"]),
            r"cut\.ckpt: at byte .* claims 150 bytes, but only",
        ),
        "too few files": (load(files=three), "the strategy is for 4 ranks, but 3 files were given"),
        "files in wrong order (silent)": (
            load(files=[FILES[1], FILES[0], *FILES[2:]]),
            "stands at place 0, where .* belongs by its",
        ),
        "predict is a list": (
            load(predict=[1]),
            r"predict_strategy=\[1\] should be a PredictLayout, a Strategy, a mapping of strings to sequences",
        ),
        "predict entry short": (
            load(predict={"w": ([2], [-1, 0])}),
            "w: a layout tuple has 4 to 12 items .* has 2",
        ),
        "predict key not str": (
            load(predict={7: PREDICT["w"]}),
            "a key of predict_strategy=7 should be a string",
        ),
        "predict field not 0": (load(predict=entry(field=1)), "w: field_size=1: only 0 is supported"),
        "predict dev not ints": (
            load(predict=entry(dev=["a"])),
            r"w: dev_matrix is a list of integers, not \['a'\]",
        ),
        "predict lacks the param": (
            load(predict={"v": PREDICT["w"]}),
            "w: the predict strategy has no layout for",
        ),
        "predict is empty dict (means single)": (
            load(predict={}),
            "w: the predict strategy has no layout for .* nothing",
        ),
        "predict not divisible": (
            load(predict=columns(3)),
            r"w: dim 1 \(cut by tp\) has 8 elements, which 3 parts",
        ),
        "predict tensor_map rank differs": (
            load(predict=entry(map=[-1])),
            r"w: tensor_map \[-1\] has 1 entries for a",
        ),
        "train strategy None and none in context": (
            load(train=None),
            r"w: the net has shape \[16, 8\], but the files' w has \[4, 8\]; the checkpoint is of another net, or",
        ),
        "train strategy missing": (load(train="/nope_strategy.ckpt"), "/nope_strategy.ckpt: No such file"),
        "train strategy empty": (
            load(train=bad / "empty.ckpt"),
            r"empty\.ckpt: not a valid strategy file, or damaged",
        ),
        "train strategy junk": (
            load(train=bad / "junk.ckpt"),
            r"junk\.ckpt: not a valid strategy file, or damaged",
        ),
        "train strategy bad json": (
            load(train=bad / "bad.json"),
            r"bad\.json: not a valid strategy file, or damaged",
        ),
        "train strategy json without layouts": (
            load(train=bad / "none.json"),
            r"none\.json: .* no parameter's layout",
        ),
        "train strategy not str": (
            load(train=7),
            "train_strategy_filename=7 should be a path, a Strategy or None",
        ),
        "net shape differs": (
            load(Net(shape=(8, 16))),
            r"w: the net has shape \[8, 16\], but the files' w has \[16",
        ),
        "net dtype differs strict": (
            load(Net(dtype="float16"), strict_load=True),
            "w: the net has dtype float16, but",
        ),
        "net dtype int32": (load(Net(dtype="int32")), "dtype int32, but .* float32; these are not converted"),
        "net has other name": (
            load(Net("other")),
            "other: the files have no entry for this parameter of the net",
        ),
        "encrypted without key": (secret(), r"net-0_1\.ckpt is encrypted by AES-GCM; pass dec_key"),
        "encrypted wrong key": (secret(dec_key=bytes(16)), "the key is wrong, or the file is damaged"),
        "encrypted wrong mode": (
            secret(**{**ENCRYPTED.key, "dec_mode": "AES-CBC"}),
            "is encrypted by AES-GCM, not AES-CBC; pass dec_mode='AES-GCM'",
        ),
        "key length 5": (secret(dec_key=b"12345"), "a key of 5 bytes; AES-GCM takes 16 or 24 or 32"),
        "key is str": (
            secret(dec_key="0123456789abcdef"),
            "dec_key is a string, and should be bytes or None",
        ),
        "load_checkpoint missing": (lambda: load_checkpoint("/nope.ckpt"), r"/nope\.ckpt: No such file"),
        "load_checkpoint filter empties": (
            lambda: load_checkpoint(FILES[0], filter_prefix=["w", "n", "f", "b"]),
            "nothing is left of .* after filter_prefix",
        ),
        "transform empty src": (transform(bad / "nowhere", rows(2)), "nowhere: no such file or folder"),
        "transform dst has no common parameter": (
            transform(FOUND.folder / "src", Strategy({"v": rows(2)["w"]})),
            "w: the destination strategy has no layout for it; it names v",
        ),
        "transform dst not divisible (8 columns over 16)": (
            transform(FOUND.folder / "src", columns(16)),
            r"w: dim 1 \(cut by tp\) has 8 elements, which 16 parts cannot share evenly; use 8 parts",
        ),
        "transform dst tensor_map rank differs": (
            transform(FOUND.folder / "src", Strategy({"w": Layout.replicated(2, 1)})),
            "w: a layout of 1 dims for a tensor of 2 dims",
        ),
    }


def served(bad, cards):
    """What MindSpore refuses, or does without a word, and we do right: name -> what we do."""

    def load(net, files=FILES, predict=PREDICT):
        return lambda: load_distributed_checkpoint(net, files, predict, FOUND.src_strategy, cards=cards)

    return {
        "ok": load(Net()),
        "wrong suffix": load(Net(), [*FILES[:3], bad / "s.ckptx"]),
        "predict with only 4 elements": load(Net(), predict={"w": PREDICT["w"][:4]}),
        "net dtype differs float16 (converted)": load(Net(dtype="float16")),
        "net prefix suffix match": load(Net("net.w"), predict={"net.w": PREDICT["w"]}),
        "transform 4 to 3": lambda: transform_checkpoints(
            FOUND.folder / "src",
            bad / "three",
            "x",
            FOUND.src_strategy,
            Strategy({"w": Layout.replicated(3, 2)}),
        ),
    }


# Of functions or formats that we do not have under these names.
ELSEWHERE = {
    "safetensors without dir",
    "safetensors with files",
    "transform rank missing",
    "merge_sliced_parameter empty",
    "merge_sliced_parameter names differ",
    "merge_sliced_parameter count",
    "merge_sliced_parameter key",
    "merge_sliced_parameter uneven",
}


def test_every_misuse_has_its_own_text(bad, cards):
    """An error of ours, with the thing and the way out, where MindSpore's words are vague or there are none."""
    for name, (work, pattern) in misuses(bad, cards).items():
        with pytest.raises(DistinferError) as raised:
            work()
        assert re.search(pattern, str(raised.value)), f"{name}: {raised.value}"


def test_what_can_be_done_is_done(bad, cards):
    """Other suffixes, short tuples, conversions, and 4 ranks to 3."""
    for work in served(bad, cards).values():
        assert work() is not None


def test_all_of_the_oracles_misuses_are_here(bad, cards):
    """None of the 54 is left out."""
    names = {item["case"] for item in json.loads((ORACLE / "errors.json").read_text())}
    assert len(names) == 54
    assert names == set(misuses(bad, cards)) | set(served(bad, cards)) | ELSEWHERE


def test_the_missing_rank_of_a_folder_is_named(tmp_path):
    """And the folder that it should be in."""
    shutil.copytree(FOUND.folder / "src", tmp_path / "src")
    shutil.rmtree(tmp_path / "src/rank_2")
    with pytest.raises(
        DistinferError,
        match="there is no file of rank 2, though there is one of rank 3; put it into .*rank_2, or open ",
    ):
        transform_checkpoints(tmp_path / "src", tmp_path / "out", "x", FOUND.src_strategy)
    with pytest.raises(DistinferError, match="needs the name of a strategy file"):
        build_searched_strategy("")
