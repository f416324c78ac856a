"""What all figures share: size, colours, type, names."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 6.5  # inches: the text block of a page, so that nothing is scaled down on it
TEXT, SMALL = 8, 7  # points

# Okabe & Ito 2008: hues that stay apart for colour-blind readers. Their yellow is too pale for marks on white paper.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
GREY, FAINT = "0.45", "0.8"
MISSING = "#F2B6D0"  # neither a grey nor in cividis

# Ten classes, each with a face, an edge and a marker of its own.
CLASSES = [
    *(
        (hue, hue, marker)
        for hue, marker in zip((BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE, BLACK, "0.6"), "os^vDPX<")
    ),
    ("#F0E442", "0.25", "*"),
    ("#FFFFFF", BLACK, "o"),
]


class SelfDrawing(Figure):
    """A figure that a notebook shows as a picture, whether or not pyplot was ever imported there."""

    def _repr_png_(self) -> bytes:
        with io.BytesIO() as stream:
            self.savefig(stream, format="png", dpi=110)
            return stream.getvalue()


def figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches whose parts make room for each other."""
    return SelfDrawing(figsize=(width, height), layout="constrained")


def panel(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Title, axis labels and type sizes of one panel, written out so that no style sheet shrinks them."""
    axes.set_title(wrapped(title, axes.bbox.width / axes.figure.dpi), fontsize=TEXT, loc="left")
    axes.set_xlabel(x, fontsize=TEXT)
    axes.set_ylabel(y, fontsize=TEXT)
    axes.tick_params(labelsize=SMALL, width=0.6, length=2.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_linewidth(0.6)


def wrapped(text: str, inches: float) -> str:
    """``text`` of the larger size, broken into lines that long."""
    return "\n".join(textwrap.fill(line, max(int(inches / 0.06), 20)) for line in text.splitlines())


def number(value: float, digits: int = 4) -> str:
    """A number with a true minus sign."""
    return f"{value:.{digits}g}".replace("-", "−")


def note(axes: Axes, text: str, corner: str = "lower right") -> None:
    """Small grey words in a corner."""
    vertical, side = corner.split()
    x, y = (0.98 if side == "right" else 0.02), (0.03 if vertical == "lower" else 0.97)
    va = "bottom" if vertical == "lower" else "top"
    axes.text(x, y, text, transform=axes.transAxes, ha=side, va=va, fontsize=SMALL, color=GREY)


def column_names(columns: Sequence[Any] | None, count: int) -> list[str]:
    """``columns`` as strings, or x_0, x_1, … where there are none.

    Raises:
        ValueError: where there are not as many names as columns.
    """
    if columns is None:
        return [f"x_{i}" for i in range(count)]
    if len(columns) != count:
        raise ValueError(
            f"columns holds {len(columns)} names, the examples have {count} entries; give one name for each"
        )
    return [str(name) for name in columns]


def short(name: str, length: int = 15) -> str:
    """``name``, its middle left out where it is longer than ``length``: numbers stand at the end."""
    half = length // 2
    return name if len(name) <= length else f"{name[:half]}…{name[-half:]}"


def plain(name: str) -> str:
    """``name`` with its dollar signs kept from starting a formula."""
    return name.replace("$", r"\$")
