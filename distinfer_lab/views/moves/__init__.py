"""Bytes on their way: how much goes from which card to which, and how much each one has."""

from .matrix import bars_svg, traffic_svg

__all__ = ["bars_svg", "traffic_svg"]
