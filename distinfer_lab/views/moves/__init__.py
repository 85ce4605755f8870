"""Bytes on their way: how much goes from which card or file to which, and how much each one has."""

from .bands import bands_svg
from .bars import CardBytes, bars_svg, memory_svg
from .files import FileBytes, file_name, files_of, files_svg
from .linked import MoveLinks, link_moves
from .matrix import traffic_svg
from .runs import CARDS, FILES, Sides, Window

__all__ = [
    "CARDS",
    "FILES",
    "CardBytes",
    "FileBytes",
    "MoveLinks",
    "Sides",
    "Window",
    "bands_svg",
    "bars_svg",
    "file_name",
    "files_of",
    "files_svg",
    "link_moves",
    "memory_svg",
    "traffic_svg",
]
