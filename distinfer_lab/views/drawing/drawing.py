"""A picture with its words, and the files that it can be saved as."""

import os
from dataclasses import dataclass
from pathlib import Path

from ...errors import ArgumentTypeError
from ...text import escape, printable
from .svg import img_html, themed

__all__ = ["Drawing"]

PAGE = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{alt}</title></head>'
    "<body>{svg}</body></html>\n"
)


@dataclass(frozen=True, repr=False)
class Drawing:
    """A still picture: shows itself in a notebook, trusted or not, and saves itself.

    Examples
    --------
    >>> from distinfer_lab.layout import Mesh
    >>> from distinfer_lab.views import mesh_svg
    >>> Drawing(mesh_svg(Mesh(tp=4)), "four cards in a row")
    four cards in a row
    """

    svg: str
    alt: str
    """What the picture says, in a sentence."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "alt", printable(self.alt, keep="\n"))

    def save(self, file: str | os.PathLike[str], *, scale: float = 2.0) -> None:
        """Write the picture to `file`, as what its name ends in: .svg, .png or .html.

        Parameters
        ----------
        scale
            Pixels of a PNG per pixel of the picture.

        Raises
        ------
        ArgumentTypeError
            If the name ends in something else.
        """
        path = Path(file)
        if path.suffix == ".svg":
            path.write_text(themed(self.svg), encoding="utf-8")
        elif path.suffix == ".html":
            path.write_text(PAGE.format(alt=escape(self.alt), svg=self.svg), encoding="utf-8")
        elif path.suffix == ".png":
            # matplotlib takes its time to load: only those who want pixels wait for it.
            from .png import png_of

            path.write_bytes(png_of(self.svg, scale))
        else:
            raise ArgumentTypeError(
                f"{os.fspath(file)}: a drawing is saved as .svg, .png or .html, not as {path.suffix!r}; "
                "give a name that ends in one of them",
                file=file,
            )

    def html(self) -> str:
        """The picture as HTML, for a page or a cell."""
        return img_html(self.svg, self.alt)

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": self.alt, "text/html": self.html()}
