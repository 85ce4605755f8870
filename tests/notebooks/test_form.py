"""Notebooks: committed executed and normalised; what is not in that form is named."""

import base64
import io
import re
from pathlib import Path

import matplotlib.image
import nbformat
import pytest
from click.testing import CliRunner

from distinfer_lab.notebooks import main, normalised, problems

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_the_committed_notebooks_are_in_their_form():
    """As CI checks it."""
    first = [
        "00_start_here",
        "01_layouts",
        "02_reshard",
        "03_train_on_cards",
        "04_predict",
        "05_your_checkpoint",
        "06_workbench",
    ]
    assert [n.stem for n in NOTEBOOKS] == first
    done = CliRunner().invoke(main, ["--check", str(FOLDER)])
    assert (done.exit_code, done.output) == (0, "")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_few_cells_are_left_out_of_the_comparison(path):
    """At most a tenth is tagged nbval-ignore-output, and none is skipped."""
    cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    tags = [tag for cell in cells for tag in cell.metadata.get("tags", [])]
    assert tags.count("nbval-ignore-output") <= len(cells) / 10
    assert "nbval-skip" not in tags


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_section_has_a_picture_that_needs_no_trust(path):
    """But for the title and what only says where next; as an <img>, never as a live <svg>."""
    pictures = {}
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            pictures.update(dict.fromkeys(re.findall(r"^##? (.*)$", cell.source, re.MULTILINE), 0))
            continue
        shown = [output.get("data", {}).get("text/html", "") for output in cell.outputs]
        pictures[list(pictures)[-1]] += sum('src="data:image/svg+xml;base64,' in html for html in shown)
        assert not [html for html in shown if "<svg" in html or "<script" in html]
    assert [name for name, count in list(pictures.items())[1:] if not count] == ["Where next"]


def made(*outputs, source="x"):
    cell = nbformat.v4.new_code_cell(source, outputs=list(outputs), execution_count=7)
    return nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})


def stream(name, text):
    return nbformat.v4.new_output("stream", name=name, text=text)


def test_normalising_takes_out_what_changes_from_run_to_run():
    """Widget state and models, counts, the pieces of a stream; the text beside a widget stays."""
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "abc"}, "text/plain": "LayoutView(w)"}
    widget = nbformat.v4.new_output("execute_result", data=data, execution_count=7)
    notebook = normalised(made(stream("stdout", "a\n"), stream("stdout", "b\n"), widget))
    assert "widgets" not in notebook.metadata
    cell = notebook.cells[0]
    assert (cell.id, cell.execution_count) == ("cell-00", 1)
    assert [o.get("text") for o in cell.outputs] == ["a\nb\n", None]
    assert cell.outputs[1].data == {"text/plain": "LayoutView(w)"}
    assert nbformat.writes(normalised(notebook)) == nbformat.writes(notebook)


def test_what_is_wrong_with_a_notebook_is_named():
    """Widget state, long cells, errors, stderr, texts without meaning, outputs too large."""
    data = {"text/plain": "<X object at 0x7f>", "text/html": "x" * 50_001}
    outputs = [
        nbformat.v4.new_output("error", ename="E", evalue="", traceback=[]),
        stream("stderr", "warning"),
        nbformat.v4.new_output("display_data", data=data),
    ]
    assert problems(made(*outputs, source="x\n" * 16)) == [
        "it carries widget state",
        "cell 0 has more than 15 lines",
        "cell 0: it ends in an error",
        "cell 0: it writes to stderr",
        "cell 0: its text has no meaning: <X object at 0x7f>",
        "cell 0: text/html of 50001 characters",
    ]


def test_an_error_that_is_meant_is_no_problem():
    """In a cell with Jupyter's tag for it."""
    notebook = made(nbformat.v4.new_output("error", ename="E", evalue="", traceback=[]))
    notebook.metadata = {}
    notebook.cells[0].metadata["tags"] = ["raises-exception"]
    assert problems(notebook) == []


def test_a_notebook_that_is_not_normalised_fails_the_check(tmp_path):
    """And is brought into its form without --check; an empty folder is an error."""
    nbformat.write(made(stream("stdout", "a")), tmp_path / "a.ipynb")
    check = CliRunner().invoke(main, ["--check", str(tmp_path)])
    assert check.exit_code == 1
    assert "it is not normalised" in check.output
    assert CliRunner().invoke(main, [str(tmp_path)]).exit_code == 0
    assert CliRunner().invoke(main, ["--check", str(tmp_path)]).exit_code == 0
    (tmp_path / "empty").mkdir()
    assert CliRunner().invoke(main, [str(tmp_path / "empty")]).exit_code == 1


def test_a_notebook_that_says_something_else_fails_the_run(tmp_path):
    """Run and checked, it is left as it is, and the cell is named; without --check it is brought up to date."""
    path = tmp_path / "a.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in ("print(1)", "print(2)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert CliRunner().invoke(main, ["--run", str(path)]).exit_code == 0
    assert CliRunner().invoke(main, ["--run", "--check", str(path)]).exit_code == 0
    notebook = nbformat.read(path, 4)
    notebook.cells[1].outputs[0].text = "3\n"
    nbformat.write(notebook, path)
    before = path.read_bytes()
    done = CliRunner().invoke(main, ["--run", "--check", str(path)])
    assert done.exit_code == 1
    assert done.output == f"{path}: cell 1 says something else when it is run\n"
    assert path.read_bytes() == before
    assert CliRunner().invoke(main, ["--run", str(path)]).exit_code == 0
    assert nbformat.read(path, 4).cells[1].outputs[0].text == "2\n"


@pytest.mark.parametrize(("where", "shades", "status"), [((3, 3), 15, 0), ((3, 3), 18, 1), (..., 5, 1)])
def test_a_chart_that_looks_the_same_stays(where, shades, status, tmp_path):
    """A pixel a few shades off, as another processor draws it, is no change; more shades, or all pixels, are one."""
    path = tmp_path / "a.ipynb"
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(draw)]), path)
    assert CliRunner().invoke(main, ["--run", str(path)]).exit_code == 0
    notebook = nbformat.read(path, 4)
    data = notebook.cells[0].outputs[-1].data
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(data["image/png"])), "png")
    pixels[..., :3][where] -= shades / 255
    pixels = pixels.clip(0, 1)
    file = io.BytesIO()
    matplotlib.image.imsave(file, pixels, format="png")
    data["image/png"] = base64.b64encode(file.getvalue()).decode()
    nbformat.write(notebook, path)
    before = path.read_bytes()
    assert CliRunner().invoke(main, ["--run", "--check", str(path)]).exit_code == status
    assert CliRunner().invoke(main, ["--run", str(path)]).exit_code == 0
    assert (path.read_bytes() == before) == (status == 0)
