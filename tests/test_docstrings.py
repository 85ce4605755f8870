"""Docstrings are read in an editor and by documentation tools: both must show a drawing as it was drawn."""

import ast
import re
from pathlib import Path

import pytest

import distinfer_lab

PACKAGE = Path(distinfer_lab.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
SECTION = re.compile(r"^[A-Z][A-Za-z ]+\n-{4,}$", re.MULTILINE)
COLUMNS = re.compile(r"\S {3,}\S")


def loose_drawings(docstring):
    """Lines that are drawn (indented, or in columns) and stand under no `::`."""
    text = SECTION.split(docstring)[0]
    found, literal = [], False
    for line in text.splitlines():
        if line and not line.startswith(" "):
            literal = line.endswith("::")
        if not literal and (line.startswith(" ") or COLUMNS.search(line)):
            found.append(line)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_drawings_at_the_heads_of_modules_are_literal_blocks(path):
    """A tool that renders reStructuredText would else fold the lines of a drawing into one paragraph."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert not docstring or loose_drawings(docstring) == []


def test_a_loose_drawing_is_found():
    """The test above sees a drawing that is indented without `::`, and one that lost its indentation."""
    drawing = "    x [2, 3]\n    w [3, 4]"
    assert loose_drawings(f"A graph.\n\n{drawing}\n") == drawing.splitlines()
    assert loose_drawings("A graph.\n\nx     [2, 3]\nw     [3, 4]\n") == ["x     [2, 3]", "w     [3, 4]"]
    assert loose_drawings(f"A graph.\n\n::\n\n{drawing}\n\nText.\n") == []
