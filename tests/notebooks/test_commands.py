"""Commands that stand in the notebooks' text: they run, beside the cells, in the order of the page."""

import re
import shlex
from contextlib import nullcontext
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from distinfer_lab.cli import main
from distinfer_lab.errors import DistinferError

FOLDER = Path(__file__).parents[2] / "notebooks"
COMMANDS = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def commands_of(cell):
    if cell.cell_type != "markdown":
        return []
    return [line for block in COMMANDS.findall(cell.source) for line in block.splitlines() if line]


def run(cell, names):
    """A cell of code, without IPython's magic; one that is tagged so raises an error of ours."""
    code = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
    raises = "raises-exception" in cell.metadata.get("tags", [])
    with pytest.raises(DistinferError) if raises else nullcontext():
        exec(compile(code, "cell", "exec"), names)


def distinfer(line):
    """One command, its words split as a shell would."""
    return CliRunner().invoke(main, shlex.split(line)[1:])


def test_each_step_has_its_command_line(tmp_path, monkeypatch):
    """In 05_your_checkpoint: every command leaves with 0, and what they wrote is what the cells wrote."""
    monkeypatch.chdir(tmp_path)
    names, count = {}, 0
    for cell in nbformat.read(FOLDER / "05_your_checkpoint.ipynb", 4).cells:
        if cell.cell_type == "code":
            run(cell, names)
        for line in commands_of(cell):
            done = distinfer(line)
            assert done.exit_code == 0, f"{line}\n{done.output}"
            count += 1
    assert count == 7
    for mine, theirs in (
        ("for_two", "for_two_too"),
        ("llama_tp4", "llama_tp4_too"),
        ("llama_again", "llama_again_too"),
    ):
        files = sorted(
            p.relative_to(mine) for p in Path(mine).rglob("*") if p.suffix in (".ckpt", ".safetensors")
        )
        assert files
        for file in files:
            same = Path(mine, file).read_bytes() == Path(theirs, file).read_bytes()
            # The notebook flips one bit at its end, to show what verify says.
            assert same == ((mine, str(file)) != ("for_two", "rank_1/checkpoint_1.ckpt"))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)
def test_commands_are_commands(path):
    """What stands in a bash block of any notebook is a command that exists."""
    for cell in nbformat.read(path, 4).cells:
        for line in commands_of(cell):
            assert re.match(r"distinfer (demo|lab|notebooks|inspect|plan|reshard|verify)\b", line), line
