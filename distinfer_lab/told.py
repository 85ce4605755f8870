"""Errors shown in words, where a traceback would bury them: in notebooks, for those who look at them on purpose.

::

    with dl.in_words():
        dl.open_checkpoint(files, "train_strategy.ckpt")
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from . import display
from .display import Displayed
from .errors import DistinferError
from .text import escape

__all__ = ["Told", "in_words"]


@dataclass(frozen=True, repr=False)
class Told(Displayed):
    """An error of this package: its kind and what it says."""

    kind: str
    said: str

    def __repr__(self) -> str:
        return f"{self.kind}: {self.said}"


def _html(told: Told) -> str:
    lines = "<br>".join(map(escape, told.said.split("\n")))
    return f'<div role="alert"><p><b>{escape(told.kind)}</b></p><p>{lines}</p></div>'


display.register(Told, _html)


@contextmanager
def in_words() -> Iterator[None]:
    """Show an error of this package in words, and go on after the block; other errors pass.

    In a notebook the words are a record among the cell's outputs, elsewhere they are printed.

    Examples
    --------
    >>> from distinfer_lab.layout import Layout
    >>> with in_words():
    ...     Layout.replicated(4, 2).row_of(7)
    LayoutError: rank 7 holds no shard; the ranks that do are 0..3
    """
    try:
        yield
    except DistinferError as err:
        from IPython.core.getipython import get_ipython
        from IPython.display import display as show

        told = Told(type(err).__name__, str(err))
        if get_ipython() is None:
            print(told)
        else:
            show(told)  # type: ignore[no-untyped-call]
