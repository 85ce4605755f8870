"""What widgets are made of: the live picture, guarded callbacks, lists with search, work in the background."""

from .deferred import Later
from .folders import FolderChooser
from .guard import TURN, ErrorLine, error_html
from .lanes import Lanes
from .outcome import outcome_html, proof_rows
from .pairs import LIVE_CARDS, LayoutPair, Strategies, pair_layouts
from .panel import Panel, close_all, still_of
from .picture import Picture, with_still
from .search import SearchList
from .steps import StepTile, steps_drawing
from .work import Control, Job, Snapshot, State, Work

__all__ = [
    "LIVE_CARDS",
    "TURN",
    "Control",
    "ErrorLine",
    "FolderChooser",
    "Job",
    "Lanes",
    "Later",
    "LayoutPair",
    "Panel",
    "Picture",
    "SearchList",
    "Snapshot",
    "State",
    "StepTile",
    "Strategies",
    "Work",
    "close_all",
    "error_html",
    "outcome_html",
    "pair_layouts",
    "proof_rows",
    "steps_drawing",
    "still_of",
    "with_still",
]
