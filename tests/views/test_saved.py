"""Records that save themselves: as text, as a page, as a picture, and as what programs read."""

import json
import os
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

import distinfer_lab as dl
from distinfer_lab import display
from distinfer_lab.errors import ArgumentTypeError, CheckpointError, CheckpointFileError
from distinfer_lab.formats import as_strategy, save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.reshard import explain

SRC = Strategy({"<w>": Layout(Mesh(tp=2), "tp -")}, {"<w>": (4, 6)})
DST = Strategy({"<w>": Layout(Mesh(tp=2), "- tp")}, {"<w>": (4, 6)})
PICTURES = {".svg", ".png"}
FORMS = {
    "Mesh": {".txt", ".html", *PICTURES},
    "Layout": {".txt", ".html", *PICTURES},
    "Strategy": {".txt", ".html", ".json", ".ckpt", *PICTURES},
    "ReshardPlan": {".txt", ".html", ".json", *PICTURES},
    "Conversion": {".txt", ".html", ".json", *PICTURES},
    "Explanation": {".txt", ".html", ".json"},
}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    for rank in range(2):
        (folder / f"rank_{rank}").mkdir()
        save_slice(folder / f"rank_{rank}/a.ckpt", {"<w>": np.zeros((2, 6), np.float32)})
    with dl.open_checkpoint(folder, SRC) as checkpoint:
        plan = dl.plan_reshard(SRC, DST)
        every = [SRC["<w>"].mesh, SRC["<w>"], SRC, plan, checkpoint.plan(DST), explain(plan)]
        yield {type(record).__name__: record for record in every}


@pytest.mark.parametrize("name", FORMS)
def test_a_record_has_the_files_that_it_can_be_saved_as(name, records, tmp_path):
    """Each named suffix makes a file of its kind; any other is refused with those that do."""
    record = records[name]
    for suffix in FORMS[name]:
        record.save(tmp_path / f"a{suffix}")
    assert {path.suffix for path in tmp_path.iterdir()} == FORMS[name]
    assert (tmp_path / "a.txt").read_text() == f"{record!r}\n"
    texts = []
    page = HTMLParser(convert_charrefs=True)
    page.handle_data = texts.append
    page.feed((tmp_path / "a.html").read_text())
    assert repr(record).splitlines()[0] in "".join(texts)
    if FORMS[name] >= PICTURES:
        assert ET.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ArgumentTypeError, match=rf"a {name} is saved as .*, not as '\.gif'") as caught:
        record.save(tmp_path / "a.gif")
    assert all(suffix in str(caught.value) for suffix in FORMS[name])
    assert caught.value.file == str(tmp_path / "a.gif")
    with pytest.raises(ArgumentTypeError, match="not as ''"):
        record.save(tmp_path / "a")


def test_what_programs_read_says_the_same(records, tmp_path):
    """A saved strategy is read back; the figures of a plan are those of its explanation."""
    for suffix in (".json", ".ckpt"):
        SRC.save(tmp_path / f"a{suffix}")
        again = as_strategy(tmp_path / f"a{suffix}")  # MindSpore's files name no axes
        np.testing.assert_array_equal(again["<w>"].boxes((4, 6)), SRC["<w>"].boxes((4, 6)))
    expected = json.loads(json.dumps(explain(records["ReshardPlan"]).to_json()))
    for name in ("ReshardPlan", "Explanation"):
        records[name].save(tmp_path / "plan.json")
        assert json.loads((tmp_path / "plan.json").read_text()) == expected
    records["Conversion"].save(tmp_path / "plan.json")
    found = json.loads((tmp_path / "plan.json").read_text())
    assert [file["read"] for file in found["files"]] == [48, 48]


def test_what_cannot_be_written_is_an_error_with_the_file(tmp_path):
    """A folder that is not there; a cut that MindSpore's file cannot say, with the form that can."""
    for suffix in (".txt", ".svg", ".png"):
        place = tmp_path / f"none/a{suffix}"
        with pytest.raises(CheckpointFileError, match="No such file or directory; choose a place") as caught:
            SRC.save(place)
        assert caught.value.file == str(place)
    uneven = Strategy({"w": Layout(Mesh(tp=2), "- tp", sizes=(None, (1, 3)))}, {"w": (2, 4)})
    with pytest.raises(CheckpointError, match=r"give the file a name that ends in \.json"):
        uneven.save(tmp_path / "a.ckpt")
    uneven.save(tmp_path / "a.json")
    assert dict(as_strategy(tmp_path / "a.json")) == dict(uneven)


def test_an_older_file_stays_until_the_new_one_is_complete(tmp_path, monkeypatch):
    """A writer that fails leaves it as it was, and nothing next to it."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(
        display, "printable", lambda *args, **options: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(CheckpointFileError, match=r"a\.txt: full; choose a place that can be written"):
        SRC.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_what_is_no_file_is_refused(tmp_path):
    """A pipe is not waited for; a name that no file can have is an error of the package."""
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(CheckpointFileError, match=r"a\.txt is not a regular file"):
        SRC.save(tmp_path / "a.txt")
    with pytest.raises(CheckpointFileError, match="choose a place that can be written"):
        SRC.save(tmp_path / "a\ud800.txt")
    for file in (None, tmp_path / "a\0.txt"):
        with pytest.raises(ArgumentTypeError, match="file"):
            SRC.save(file)
