"""Choosing a folder with a checkpoint in it, and the strategy file that belongs to it."""

from pathlib import Path
from typing import Any

import ipywidgets
import traitlets

from ...checkpoint import rank_files, strategy_files
from ...display import counted
from ...errors import DistinferError
from ...formats import MANIFEST, FolderFormat, as_strategy, folder_format_of
from ...text import escape, printable
from .guard import ErrorLine

__all__ = ["FolderChooser"]

MOST_LISTED = 200
NO_STRATEGY = "none: every file holds everything, or the folder's manifest says it"


class FolderChooser(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A path, the folders in it, and the strategy files near it.

    Parameters
    ----------
    start
        Where to begin.
    errors
        Where errors are shown.

    Attributes
    ----------
    path : str
        The folder. It may be set.
    strategy : str
        The strategy file, "" for none. It may be set to one that is listed.
    step, file : str or None
        Which save and which files, as `open_checkpoint` takes them; None for those that it chooses by itself.
    """

    path = traitlets.Unicode()

    def __init__(self, start: str, errors: ErrorLine) -> None:
        wide, row = ipywidgets.Layout(width="min(100%, 620px)"), ipywidgets.Layout(flex_flow="row wrap")
        self.field = ipywidgets.Text(description="Folder", continuous_update=False, layout=wide)
        self.inside = ipywidgets.Select(description="In it", rows=6, layout=wide)
        self.go_in = ipywidgets.Button(description="Go in", icon="level-down")
        self.go_up = ipywidgets.Button(description="Up", icon="level-up")
        self.files = ipywidgets.Dropdown(description="Strategy", layout=wide)
        self.save = ipywidgets.Text(
            description="Save", placeholder="the newest of all ranks; or a step, e.g. 9_100", layout=wide
        )
        self.pattern = ipywidgets.Text(
            description="Only files", placeholder="all; or names with stars, e.g. net-9_*", layout=wide
        )
        self.said = ipywidgets.HTML()
        super().__init__(
            [
                self.field,
                self.inside,
                ipywidgets.HBox([self.go_in, self.go_up], layout=row),
                self.files,
                self.save,
                self.pattern,
                self.said,
            ]
        )
        self.go_in.on_click(errors.guard(lambda button: self._go(self.inside.value)))
        self.go_up.on_click(errors.guard(lambda button: self._go("..")))
        self.observe(errors.guard(lambda change: self._look()), "path")
        traitlets.link((self, "path"), (self.field, "value"))
        self.path = str(Path(start).resolve())

    @traitlets.validate("path")
    def _whole_path(self, proposal: Any) -> str:
        return str(Path(proposal["value"]).expanduser())

    @property
    def strategy(self) -> str:
        """The strategy file, "" for none."""
        return self.files.value or ""

    @strategy.setter
    def strategy(self, file: str) -> None:
        self.files.value = file

    @property
    def step(self) -> str | None:
        """Which save of the folder; None for the newest that all ranks have."""
        return str(self.save.value).strip() or None

    @property
    def file(self) -> list[str] | None:
        """Patterns of file names, of which the field has several with commas between them; None for all."""
        patterns = [pattern.strip() for pattern in str(self.pattern.value).split(",")]
        return [pattern for pattern in patterns if pattern] or None

    def _go(self, name: str | None) -> None:
        if name:
            self.path = str(Path(self.path, name).resolve())

    def _look(self) -> None:
        """List what is in the folder; one that cannot be read says why."""
        here = Path(self.path)
        self.save.value = self.pattern.value = ""  # what was chosen is of the folder that was shown
        try:
            found = sorted(here.iterdir(), key=lambda path: path.name)
        except OSError as err:
            self.inside.options, self.files.options = [], [(NO_STRATEGY, "")]
            self.said.value = f'<div role="status">{escape(str(here))}: {err.strerror}. Check the path.</div>'
            return
        folders = [path for path in found if path.is_dir() and not path.name.startswith(".")]
        self.inside.options = [(_label(path), path.name) for path in folders[:MOST_LISTED]]
        own = strategy_files(here)
        nearby = [path for path in strategy_files(here.parent) if path not in own]
        self.files.options = [
            (NO_STRATEGY, ""),
            *((printable(str(path)), str(path)) for path in (*own, *nearby)),
        ]
        # A folder that says itself how it lies needs no file from elsewhere.
        near = own if _says_its_layout(here) else [*own, *nearby]
        likely = [str(path) for path in near if "strategy" in path.name]
        count = _slices(here)
        fitting = [file for file in likely if _ranks(file) == count] if len(likely) > 1 else []
        self.files.value = next(iter(fitting or likely), "")
        words = f"Here: {_holds(here, count)}." if count else "No checkpoint lies directly in this folder."
        more = f" The first {MOST_LISTED} folders are listed." if len(folders) > MOST_LISTED else ""
        self.said.value = f'<div role="status">{words}{more}</div>'

    def __repr__(self) -> str:
        return f"FolderChooser({self.path})"


def _label(path: Path) -> str:
    count = _slices(path)
    name = printable(path.name)
    return f"{name}  ({_holds(path, count)})" if count else name


def _holds(folder: Path, count: int) -> str:
    """What a folder with so many ranks' files is."""
    whole = _folder_format(folder)
    return counted(count, "slice file") if whole is None else f"a whole checkpoint of {whole.title}"


def _folder_format(folder: Path) -> FolderFormat | None:
    try:
        return folder_format_of(folder)
    except DistinferError:
        return None


def _slices(folder: Path) -> int:
    """How many slice files a folder has, 0 if it is no checkpoint."""
    try:
        return len(rank_files(folder))
    except (DistinferError, OSError):
        return 0


def _ranks(file: str) -> int:
    """For how many ranks a strategy is; 0 if it cannot be read."""
    try:
        return as_strategy(file).ranks
    except DistinferError:
        return 0


def _says_its_layout(folder: Path) -> bool:
    """Whether a folder has a manifest, or is a whole checkpoint of Hugging Face."""
    return (folder / MANIFEST).exists() or _folder_format(folder) is not None
