"""The README's drawing is what the views draw today.

python -m tests.views.test_readme .github/layouts.svg
"""

import sys
from pathlib import Path

from distinfer_lab.layout import Layout, Mesh
from distinfer_lab.views import layout_pair_svg

README = Path(__file__).parents[2] / ".github" / "layouts.svg"


def drawing() -> str:
    """The weight of the four steps: cut by columns on eight cards, then on four."""
    train, infer = Mesh(dp=2, tp=4), Mesh(tp=4)
    columns = "- tp"
    return layout_pair_svg(Layout(train, columns), Layout(infer, columns), (96, 16), name="matmul_weight")


def test_the_readme_shows_what_is_drawn() -> None:
    """A picture of an older look is drawn again by this module's command."""
    assert README.read_text() == drawing()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(drawing())
