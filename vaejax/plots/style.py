"""What all figures share: size, colours, type, names."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
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
    axes.tick_params(which="minor", labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_linewidth(0.6)


def wrapped(text: str, inches: float) -> str:
    """``text`` of the larger size, broken into lines that long."""
    return "\n".join(textwrap.fill(line, max(int(inches / 0.06), 20)) for line in text.splitlines())


def number(value: float, digits: int = 4) -> str:
    """A number with a true minus sign, and without an exponent up to millions."""
    whole = 10**digits <= abs(value) < 1e7
    return (f"{value:.0f}" if whole else f"{value:.{digits}g}").replace("-", "−")


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


def cut(axes: Axes, at: np.ndarray, series: np.ndarray, what: str = "epoch") -> None:
    """Ends the y-axis where the series ``[lines, n]`` do after their first twentieth: the first ones would flatten everything else."""
    series = np.where(np.isfinite(series), series, np.nan)
    first = max(len(at) // 20, int(len(at) >= 5))
    kept = series[:, first:][np.isfinite(series[:, first:])]
    if not kept.size:
        return
    margin = 0.06 * float(np.ptp(kept)) or 0.05 * abs(float(kept[0])) or 1.0
    low, high = kept.min() - margin, kept.max() + margin
    # First epochs a little outside cost nothing: only what would halve the room of all others is left out.
    if np.nanmin(series) >= low - (high - low) and np.nanmax(series) <= high + (high - low):
        axes.set_ylim(min(low, np.nanmin(series) - margin), max(high, np.nanmax(series) + margin))
        return
    axes.set_ylim(low, high)
    below = np.nanmin(series) < low
    outside = at[((series < low) | (series > high)).any(axis=0)]
    which = f"{what} {outside[0]} goes" if len(outside) == 1 else f"{what}s {outside[0]}–{outside[-1]} go"
    end = f"down to {number(np.nanmin(series))}" if below else f"up to {number(np.nanmax(series))}"
    note(axes, f"axis cut: {which}\n{end}", _free_corner(series, low, high))


def _free_corner(series: np.ndarray, low: float, high: float) -> str:
    """The corner of ``low`` … ``high`` in which the fewest points lie, the lower right if it is one of them."""
    half = series.shape[1] // 2
    sides = {"right": series[:, half:], "left": series[:, :half]}
    room = 0.25 * (high - low)
    crowd = {
        f"{vertical} {side}": np.sum((part <= low + room) if vertical == "lower" else (part >= high - room))
        for vertical in ("lower", "upper")
        for side, part in sides.items()
    }
    return min(crowd, key=lambda corner: crowd[corner])
