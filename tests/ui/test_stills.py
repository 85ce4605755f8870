"""Stored pictures follow the theme of the page that shows them, without a kernel and without trust."""

import io

import numpy as np
import pytest
from PIL import Image

from distinfer_lab.layout import Layout, Mesh
from distinfer_lab.views import cutmap_svg, img_html, layout_svg, mesh_svg

COLUMNS, ROWS = Layout(Mesh(dp=2, tp=4), "- tp"), Layout(Mesh(tp=4), "tp -")
STILLS = {
    "cut map": cutmap_svg(COLUMNS, ROWS, (384, 512)),
    "layout": layout_svg(COLUMNS, (384, 512)),
    "mesh": mesh_svg(COLUMNS.mesh),
}


def share_of(page, scheme, svg):
    """The part of a picture's pixels that is nearly white, and nearly black, on a page of one scheme."""
    page.set_content(f'<html style="color-scheme:{scheme}"><body>{img_html(svg, "x")}</body></html>')
    page.wait_for_function("document.images[0].complete")
    pixels = np.asarray(Image.open(io.BytesIO(page.locator("img").screenshot())).convert("L"))
    return float((pixels > 235).mean()), float((pixels < 60).mean())


@pytest.mark.parametrize("svg", STILLS.values(), ids=STILLS)
def test_a_still_is_dark_on_a_dark_page(browser, svg):
    """Hardly anything is white there; on a light page the paper is."""
    page = browser.new_page(viewport={"width": 800, "height": 700})
    light, dark = share_of(page, "light", svg), share_of(page, "dark", svg)
    page.close()
    assert light[0] > 0.4
    assert dark[0] < 0.2
    assert dark[1] > 0.3


def test_a_still_shrinks_with_its_column(browser):
    """A picture of 760 pixels fits a page of 500."""
    page = browser.new_page(viewport={"width": 500, "height": 700})
    page.set_content(img_html(STILLS["cut map"], "x"))
    assert page.locator("img").bounding_box()["width"] <= 500
    page.close()
