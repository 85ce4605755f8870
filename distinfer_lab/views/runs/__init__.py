"""Runs: what every card did when, what a net computes in which order, and charts of it."""

from .charts import line_chart
from .graph import Step, graph_svg
from .timeline import timeline_svg

__all__ = ["Step", "graph_svg", "line_chart", "timeline_svg"]
