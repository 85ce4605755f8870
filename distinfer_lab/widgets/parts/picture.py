"""The one widget with JavaScript of its own: a picture whose tiles light up and can be chosen.

::

    Python                          the page (picture.js, picture.css)
    svg, sentences, partners  --->  draws, names its tiles for those who hear it
    hover, selected           <-->  pointer, keyboard
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ...errors import LayoutError
from ...text import printable
from ...views import Drawing, partner_sets

__all__ = ["Picture", "with_still"]

HERE = Path(__file__).parent


class Picture(anywidget.AnyWidget):  # type: ignore[misc]  # skipped: it imports untyped ipywidgets
    """An SVG with tiles (elements with a `data-key`), live in the page.

    Parameters
    ----------
    drawing
        The SVG and its alternative text.
    sentences
        For each key what to say of its tile.
    partners
        For each key the keys that light up with it.
    still
        What to show where there is no kernel, or no trust; by default the drawing itself.
    hint
        What to say while no tile is hovered or selected.

    Attributes
    ----------
    hover, selected : str
        The key of the tile under the pointer or the focus, and of the chosen one; "" for none.
        Both may be set from Python and reach the page.
    """

    _esm = HERE / "picture.js"
    _css = HERE / "picture.css"

    svg = traitlets.Unicode().tag(sync=True)
    sentences = traitlets.Dict().tag(sync=True)
    partner_set_of = traitlets.Dict().tag(sync=True)
    partner_sets: traitlets.List[Any] = traitlets.List().tag(sync=True)
    hint = traitlets.Unicode().tag(sync=True)
    hover = traitlets.Unicode().tag(sync=True)
    selected = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        drawing: Drawing,
        sentences: Mapping[str, str],
        partners: Mapping[str, tuple[str, ...]],
        *,
        still: Drawing | None = None,
        hint: str = "Hover or focus a card; Enter or a click selects it, Escape lets go.",
    ) -> None:
        super().__init__(hint=hint)
        self.show(drawing, sentences, partners, still=still)

    def show(
        self,
        drawing: Drawing,
        sentences: Mapping[str, str],
        partners: Mapping[str, tuple[str, ...]],
        *,
        still: Drawing | None = None,
    ) -> None:
        """Replace the picture; a selected tile stays selected where the new one has it too."""
        self.still = still or drawing
        numbers, sets = partner_sets(partners)
        with self.hold_sync():
            self.hover = ""
            if self.selected not in sentences:
                self.selected = ""
            self.sentences = {key: printable(words) for key, words in sentences.items()}
            self.partner_set_of, self.partner_sets = numbers, [list(keys) for keys in sets]
            self.svg = drawing.svg

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take what the page says; where that is of a tile that is gone by now, it came late."""
        late = [
            name
            for name in ("hover", "selected")
            if sync_data.get(name) and sync_data[name] not in self.sentences
        ]
        super().set_state({name: value for name, value in sync_data.items() if name not in late})

    @traitlets.validate("hover", "selected")
    def _check_key(self, proposal: Any) -> str:
        key: str = proposal["value"]
        if key and key not in self.sentences:
            first, last = next(iter(self.sentences), "none"), next(reversed(self.sentences), "none")
            raise LayoutError(
                f"{proposal['trait'].name}={key!r}: the picture has no such card; its keys go from "
                f'{first!r} to {last!r}, and "" is none'
            )
        return key

    def __repr__(self) -> str:
        return f"Picture({self.still.alt})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return with_still(super()._repr_mimebundle_(**kwargs), repr(self), self.still)


def with_still(bundle: Any, words: str, still: Drawing) -> Any:
    """A widget's mimebundle with its full text, and a still picture next to the live view."""
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    return {**data, "text/plain": words, "text/html": still.html()}, metadata
