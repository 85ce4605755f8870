"""The form in which notebooks are committed: executed, and the same bytes for the same content.

::

    python -m distinfer_lab.notebooks --run notebooks           execute, then normalise
    python -m distinfer_lab.notebooks notebooks                 normalise
    python -m distinfer_lab.notebooks --check notebooks         fail if one is not in that form
    python -m distinfer_lab.notebooks --run --check notebooks   fail if one says something else when it is run again

Folders, or single notebooks.

No widget state, no timings, no execution times, stable cell ids, counts 1, 2, 3 ... A chart that looks as it did
before stays: another processor computes other last bits, and a few of its pixels are a shade off.
"""

import base64
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import nbformat

from .errors import CheckpointFileError

__all__ = ["main", "normalised", "problems"]

LONGEST_CELL = 15
LARGEST_OUTPUT = 50_000
VOLATILE = ("application/vnd.jupyter.widget-view+json",)
CHART = "image/png"
MAY_RAISE = "raises-exception"
"""Jupyter's tag of a cell whose error is meant: the cells after it are run."""
SHADES_APART, MOST_APART = 16 / 255, 0.01
"""By how much a pixel of a chart may differ from what it was, and what share of the pixels may differ at all."""


def normalised(notebook: Any) -> Any:
    """The notebook in its committed form (changed in place, and given back)."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    count = 0
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [_output(o, count) for o in _joined(cell.outputs)]
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """Neighbouring pieces of one stream as one: how they were cut is chance."""
    out: list[Any] = []
    for output in outputs:
        if out and output.output_type == "stream" == out[-1].output_type and out[-1].name == output.name:
            out[-1].text += output.text
        else:
            out.append(output)
    return out


def _output(output: Any, count: int) -> Any:
    if output.output_type == "execute_result":
        output.execution_count = count
    for data in [output.get("data", {})]:
        for kind in VOLATILE:
            if kind in data:
                # The model's id is new in every run; its text and picture do not change.
                del data[kind]
    return output


def _keep_charts(before: Any, after: Any) -> None:
    """Where a chart looks as it did before, give it the bytes that it had."""
    for old, new in zip(before.cells, after.cells, strict=False):
        for was, now in zip(old.get("outputs", []), new.get("outputs", []), strict=False):
            charts = [output.get("data", {}).get(CHART) for output in (was, now)]
            if all(charts) and _same_picture(*charts):
                now.data[CHART] = was.data[CHART]


def _same_picture(one: str, other: str) -> bool:
    """Whether two charts (PNG in base64) are one picture but for a few pixels, and these by a few shades."""
    import matplotlib.image
    import numpy as np

    a, b = (matplotlib.image.imread(io.BytesIO(base64.b64decode(text)), "png") for text in (one, other))
    if a.shape != b.shape:
        return False
    apart = np.abs(a - b)
    return bool(apart.max() <= SHADES_APART and (apart > 0).any(-1).mean() <= MOST_APART)


def problems(notebook: Any) -> list[str]:
    """The ways in which a notebook differs from its form, a sentence each."""
    out = []
    if "widgets" in notebook.metadata:
        out.append("it carries widget state")
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if len(cell.source.splitlines()) > LONGEST_CELL:
            out.append(f"cell {number} has more than {LONGEST_CELL} lines")
        if cell.execution_count is None:
            out.append(f"cell {number} was not executed")
        raises = MAY_RAISE in cell.metadata.get("tags", [])
        out += [f"cell {number}: {p}" for output in cell.outputs for p in _output_problems(output, raises)]
    return out


def _output_problems(output: Any, may_raise: bool) -> list[str]:
    out = []
    if output.output_type == "error" and not may_raise:
        out.append("it ends in an error")
    if output.get("name") == "stderr":
        out.append("it writes to stderr")
    for kind, data in output.get("data", {}).items():
        text = data if isinstance(data, str) else ""
        if len(text) > LARGEST_OUTPUT:
            out.append(f"{kind} of {len(text)} characters")
        if kind == "text/plain" and re.search(r"object at 0x|VBox\(children=", text):
            out.append(f"its text has no meaning: {text[:60]}")
    return out


def _text(notebook: Any) -> str:
    return f"{nbformat.writes(notebook)}\n"


def _execute(path: Path) -> Any:
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
    return notebook


def _paths(given: Sequence[Path]) -> list[Path]:
    """The notebooks that are meant."""
    found = []
    for path in given:
        inside = sorted(path.glob("*.ipynb")) if path.is_dir() else [path]
        if not inside:
            raise CheckpointFileError(f"{path}: no notebooks there", file=path)
        found += inside
    return found


def _differences(before: Any, after: Any) -> list[str]:
    """Which cells of a notebook say something else than they did."""
    if len(before.cells) != len(after.cells):
        return [f"it has {len(after.cells)} cells, not {len(before.cells)}"]
    cells = zip(before.cells, after.cells, strict=True)
    return [
        f"cell {number} says something else when it is run" for number, (a, b) in enumerate(cells) if a != b
    ]


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; fail if a notebook is not in its form.")
@click.option("--run", is_flag=True, help="Execute each notebook first.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(check: bool, run: bool, paths: tuple[Path, ...]) -> None:
    """Bring notebooks, or those of a folder, into the form in which they are committed."""
    failed = False
    for path in _paths(paths):
        before = path.read_text()
        committed = nbformat.reads(before, as_version=4)
        notebook = normalised(_execute(path) if run else nbformat.reads(before, as_version=4))
        if run:
            _keep_charts(committed, notebook)
        found = problems(notebook)
        if check and run:
            found += _differences(committed, notebook)
        elif check and _text(notebook) != before:
            found.append("it is not normalised; run python -m distinfer_lab.notebooks on its folder")
        if not check:
            path.write_text(_text(notebook))
        for problem in found:
            click.echo(f"{path}: {problem}", err=True)
        failed |= bool(found)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
