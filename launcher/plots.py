"""Curves of a run as PNG images, where matplotlib is installed (`resolute[plot]`)."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.durable import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (5.4, 3.8)
_DPI = 120


class PlottingError(ValueError):
    """A plot was asked for where it cannot be drawn."""


@dataclass(frozen=True)
class Curve:
    """Points to be joined, and a band around them if there are several runs."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    marker: str = "o"


@dataclass(frozen=True)
class Panel:
    """One pair of axes. `vertical` marks a place on the x axis, with its name."""

    x_label: str
    y_label: str
    curves: Sequence[Curve]
    vertical: tuple[float, str] | None = None
    x_ticks: Sequence[float] | None = None


def draw(path: Path, panels: Sequence[Panel], *, title: str) -> None:
    """Draw the panels beside each other into the PNG file `path`.

    Raises PlottingError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise PlottingError(f"{path.name}: drawing it needs matplotlib; pip install 'resolute[plot]'") from error
    figure = Figure(figsize=(_INCHES[0] * len(panels), _INCHES[1]), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for number, panel in enumerate(panels, start=1):
        _fill(figure.add_subplot(1, len(panels), number), panel)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())


def _fill(axes: Axes, panel: Panel) -> None:
    for curve in panel.curves:
        (line,) = axes.plot(curve.x, curve.y, marker=curve.marker, markersize=4, label=curve.label)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, alpha=0.2, color=line.get_color())
    if panel.vertical is not None:
        place, name = panel.vertical
        axes.axvline(place, linestyle=":", color="grey", label=name)
    if panel.x_ticks is not None:
        axes.set_xticks(panel.x_ticks)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.grid(alpha=0.3)
    axes.legend()


def try_to_draw(path: Path, panels: Sequence[Panel], *, title: str, tell: Callable[[str], None]) -> None:
    """Draw, or tell why not: figures are printed and kept without a picture, too."""
    try:
        draw(path, panels, title=title)
    except PlottingError as error:
        tell(str(error))
    else:
        tell(f"plot {path}")
