"""Charts, where a picture is a chart: a loss over steps, bytes or seconds over time. By matplotlib."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..drawing import OKABE_ITO

__all__ = ["line_chart"]

STYLES = ("-", "--", "-.", ":")
MARKERS = "os^Dvx+"


def line_chart(
    series: Mapping[str, Sequence[float] | tuple[Sequence[float], Sequence[float]]],
    title: str,
    *,
    x_label: str = "step",
    y_label: str = "",
) -> Any:
    """One line for each series, distinguished by color, dashes and marker, named at its end.

    Parameters
    ----------
    series
        Name -> its values, or its x and its y.
    x_label, y_label
        What is along the axes, with the unit.

    Returns
    -------
    matplotlib.figure.Figure
        Shows itself in a notebook; `figure.savefig("x.svg")` saves it.
    """
    # Not at the top: a picture of cards should not wait for matplotlib.
    from matplotlib.figure import Figure

    figure = Figure((6.4, 3.2), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for i, (name, values) in enumerate(series.items()):
        x, y = values if isinstance(values, tuple) else (range(len(values)), values)
        colour, dashes, marker = OKABE_ITO[(i + 4) % 7], STYLES[i % 4], MARKERS[i % 7]
        axes.plot(x, y, dashes, color=colour, marker=marker, markersize=4, markevery=0.1, label=name)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#ddd")
    if len(series) > 1:
        axes.legend(frameon=False)
    return figure
