"""Bytes on their way: how much goes from which card or file to which, and how much each one has."""

from .bands import bands_svg
from .bars import CardBytes, bars_svg, memory_svg
from .matrix import traffic_svg

__all__ = ["CardBytes", "bands_svg", "bars_svg", "memory_svg", "traffic_svg"]
