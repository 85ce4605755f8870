"""The README's drawing is what the views draw today.

python -m tests.views.test_readme .github/layouts.svg
"""

import sys
from pathlib import Path

from distinfer_lab.layout import Layout, Mesh
from distinfer_lab.views import cutmap_svg
from distinfer_lab.views.drawing import themed

README = Path(__file__).parents[2] / ".github" / "layouts.svg"


def drawing() -> str:
    """A weight that is cut by columns on eight cards, and by rows on four."""
    train, infer = Layout(Mesh(dp=2, tp=4), "- tp"), Layout(Mesh(tp=4), "tp -")
    return themed(cutmap_svg(train, infer, (384, 512), name="mlp.up.weight", itemsize=4))


def test_the_readme_shows_what_is_drawn() -> None:
    """A picture of an older look is drawn again by this module's command."""
    assert README.read_text() == drawing()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(drawing())
