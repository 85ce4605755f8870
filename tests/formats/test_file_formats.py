"""A format of one rank's files is one module and one line: a new one is read, written, resharded and verified."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import distinfer_lab
from distinfer_lab.formats import FILE_FORMATS, format_named, format_of

TOY = '''
"""Plain: a line for each tensor, an empty line, and the tensors one after another."""

import numpy as np

from ..errors import CheckpointError
from .entry import Entry, Piece
from .file_format import FileIndex, FileLayout


class Plain:
    """A toy."""

    name = "plain"
    title = "plain"
    head = rb"plain\\n"
    has_checksum = False

    def index(self, path, read_at, size):
        head, found, data = read_at(0, 1 << 20).partition(b"\\n\\n")
        if not found:
            raise CheckpointError(f"{path}: no empty line ends the header; not a .plain file")
        entries, at = {}, len(head) + 2
        for line in head.decode().splitlines()[1:]:
            name, dtype, *dims = line.split(" ")
            shape = tuple(map(int, dims))
            nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            if at + nbytes > size:
                raise CheckpointError(f"{path}: {name} ends behind the end of the file")
            entries[name] = Entry(name, "", np.dtype(dtype), shape, (Piece(at, nbytes),))
            at += nbytes
        return FileIndex(entries, {})

    def problem(self, spec):
        if spec.text is not None or set(spec.name) & set(" \\n"):
            return "a .plain file holds no texts, and no spaces in names"
        return ""

    def lay_out(self, specs, chunk_bytes, metadata):
        lines = ["plain", *(" ".join([s.name, s.dtype.str, *map(str, s.shape)]) for s in specs)]
        head = "\\n".join(lines).encode() + b"\\n\\n"
        entries, at = {}, len(head)
        for spec in specs:
            entries[spec.name] = Entry(spec.name, "", spec.dtype, spec.shape, (Piece(at, spec.nbytes),))
            at += spec.nbytes
        return FileLayout([(0, head)], entries, at)
'''
FOLDER = '''
"""Boxes: a folder with a list of its files, "tensor file" a line, in a file called box.txt."""

from pathlib import Path

from .file_format import LikeFiles, Members


class Boxes:
    """A toy."""

    name, title, signs = "boxes", "box", "box.txt"
    file_format, metadata, index_name = "plain", {}, "box.txt"

    def members(self, path):
        index = Path(path) / "box.txt"
        if not index.is_file():
            return None
        listed_in = dict(line.split(" ") for line in index.read_text().splitlines())
        names = sorted(set(listed_in.values()))
        return Members(tuple(str(Path(path) / name) for name in names), listed_in, "box.txt")

    def notes(self, folder):
        return ["a box was opened"]

    def file_names(self, count):
        return [f"box{number}.plain" for number in range(count)]

    def like(self, path):
        return LikeFiles(self.members(path).listed_in, "box.txt")

    def companions(self, path):
        return []

    def companion(self, path, dtypes):
        return path.read_bytes()

    def index(self, listed_in, nbytes, elements):
        return "".join(f"{name} {file}\\n" for name, file in listed_in.items()).encode()
'''
USE = """
import os
import numpy as np
import distinfer_lab as dl
from distinfer_lab.cli import main

whole = np.arange(48, dtype=np.float32).reshape(8, 6)
rows = dl.Strategy({"w": dl.Layout(dl.Mesh(tp=2), "tp -")}, {"w": (8, 6)})
columns = dl.Strategy({"w": dl.Layout(dl.Mesh(tp=3), "- tp")}, {"w": (8, 6)})
for rank in range(2):
    dl.save_slice(f"src/rank_{rank}/a.plain", {"w": whole[4 * rank : 4 * rank + 4]})
with dl.open_checkpoint("src", rows) as checkpoint:
    assert checkpoint.format == "plain"
    assert checkpoint.plan(columns).write("out").verify().ok
    checkpoint.plan(columns).write("as_ckpt", format="ckpt")
for folder, name in (("out", "plain"), ("as_ckpt", "ckpt")):
    with dl.open_checkpoint(folder) as again:
        assert again.format == name
        for rank in range(3):
            np.testing.assert_array_equal(again.read(rank, "w"), whole[:, 2 * rank : 2 * rank + 2])
        again.plan(rows).write(f"{folder}_back", format="plain")
for rank in range(2):
    back = open(f"out_back/rank_{rank}/checkpoint_{rank}.plain", "rb").read()
    assert back == open(f"src/rank_{rank}/a.plain", "rb").read()
open("rules.json", "w").write('[{"match": "*", "dims": "- tp"}]')
options = ["--to", "tp=3", "--rules", "rules.json", "--format", "plain"]
main(["reshard", "as_ckpt", "by_command", *options], standalone_mode=False)
assert sorted(os.listdir("by_command/rank_2")) == ["checkpoint_2.plain"]
try:
    dl.save_slice("b.plain", {"t": "a text"})
except dl.errors.CheckpointError as err:
    assert "holds no texts" in str(err)
else:
    raise AssertionError("a text was taken")
with dl.open_checkpoint("as_ckpt") as checkpoint:
    checkpoint.plan(rename={"w": "v"}).write("box", format="boxes", max_shard_size=1)
    assert checkpoint.plan().write("one", format="boxes").paths == ("one/box0.plain",)
open("one/box.txt", "w").write("w box0.plain\\n")
with dl.open_checkpoint("one") as checkpoint:
    assert checkpoint.ranks == 1 and checkpoint.notes == ("a box was opened",)
    np.testing.assert_array_equal(checkpoint.read(0, "w"), whole)
    checkpoint.plan().write("alike", format="boxes", like="one")
    assert open("alike/box.txt").read() == "w box0.plain\\n"
try:
    dl.open_slice("one")
except dl.errors.CheckpointFileError as err:
    assert "it is a box folder, not a file" in str(err)
else:
    raise AssertionError("a folder was taken for a file")
open("b.ckpt", "wb").write(open("src/rank_1/a.plain", "rb").read())
try:
    dl.open_checkpoint("b.ckpt")
except dl.errors.CheckpointError as err:
    assert "a plain file by its content, under another name; rename it to end in .plain" in str(err)
else:
    raise AssertionError("another format's file was taken")
open("src/rank_1/a.plain", "wb").write(b"cut")
try:
    dl.open_checkpoint("src", rows)
except dl.errors.CheckpointError as err:
    assert "rank_1/a.plain" in str(err) and "no empty line" in str(err)
else:
    raise AssertionError("a damaged file was taken")
print("done")
"""


def test_a_format_is_one_file_and_one_line(tmp_path):
    """As a contributor would add one, and one of folders: a module, and a line in the list of formats."""
    package = tmp_path / "package/distinfer_lab"
    shutil.copytree(
        Path(distinfer_lab.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "shipped")
    )
    (package / "formats/plain.py").write_text(TOY)
    (package / "formats/boxes.py").write_text(FOLDER)
    registry = package / "formats/file_formats.py"
    text = registry.read_text()
    registry.write_text(
        text.replace("    Safetensors(),\n", "    Safetensors(),\n    Plain(),\n")
        .replace("(HuggingFace(),)", "(HuggingFace(), Boxes())")
        .replace("from .ckpt import Ckpt\n", "from .boxes import Boxes\nfrom .ckpt import Ckpt\n")
        .replace(
            "from .safetensors_file import Safetensors\n",
            "from .plain import Plain\nfrom .safetensors_file import Safetensors\n",
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.fspath(package.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout[-5:]) == (0, "done\n"), done.stderr[-3000:]


def test_formats_are_found_by_name_and_by_suffix():
    """A name is that of the suffix; what has none of them is the first."""
    for one in FILE_FORMATS:
        assert format_named(one.name) is one
        assert format_of(f"a/b.{one.name}") is one
    assert format_of("a/b") is FILE_FORMATS[0]
    assert format_named("pt") is None
