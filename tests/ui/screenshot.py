"""The picture in the README: a real JupyterLab, its widgets at work.

python -m tests.ui.screenshot .github/workbench.png
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from .lab import CHROMIUM, Lab, Notebook

__all__ = ["take"]

MAKE = """
import ipywidgets
import distinfer_lab as dl

shapes = {"up.weight": (512, 256), "down.weight": (256, 512), "norm.weight": (256,)}
cuts = {"up.weight": "tp -", "down.weight": "- tp", "norm.weight": "-"}
train, infer = dl.Mesh(dp=2, tp=4), dl.Mesh(tp=3)
training = dl.Strategy({n: dl.Layout(train, d) for n, d in cuts.items()}, shapes)
other = {n: dl.Layout(infer, d, split="torch_chunk") for n, d in cuts.items()}
inference = dl.Strategy(other, shapes)
"""

SHOW = """
layouts = dl.LayoutView(training, inference, parameter="up.weight")
moves = dl.PlanView(dl.plan_reshard(training, inference), parameter="up.weight")
moves.link(layouts)
layouts.layout.width, moves.layout.width = "550px", "590px"
ipywidgets.HBox([layouts, moves], layout=ipywidgets.Layout(width="1150px"))
"""


def take(target: Path) -> None:
    """Write the picture: one training card is hovered, and what belongs to it is lit."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Lab(folder) as lab,
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        notebook = Notebook(lab, browser, [MAKE, SHOW], width=1340)
        notebook.page.set_viewport_size({"width": 1340, "height": 1500})
        notebook.tile("train:5").first.hover()
        notebook.page.locator(".is-linked").first.wait_for()
        notebook.page.locator(".jp-OutputArea-output .widget-hbox").first.screenshot(path=target)
        assert notebook.troubles == []
        notebook.close()
        browser.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]))
