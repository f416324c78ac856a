"""Images in rows and columns: their shape, their grey scale, missing pixels, and where everything stands on the page."""

import math
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from vaejax import checks
from vaejax.plots import ask, style

_CELL, _MIN_CELL, _TALLEST, _EDGE, _GAP, _BREAK = 0.62, 0.2, 8.0, 0.08, 0.04, 0.1  # inches


class Row(NamedTuple):
    """A row of images.

    Attributes:
        images: ``[n, height, width]`` or ``[n, height, width, 3]``; a numpy masked array where pixels are missing.
        name: words to its left.
        framed: columns with a coloured frame, such as inputs among decoded images.
        apart: set a little apart from the row above.
    """

    images: np.ndarray
    name: str = ""
    framed: tuple[int, ...] = ()
    apart: bool = False


class Scale(NamedTuple):
    """What white and black stand for."""

    low: float
    high: float
    cmap: str


def as_images(x: Any, image_shape: tuple[int, ...] | None) -> np.ndarray:
    """Examples ``[n, *event]`` as images ``[n, height, width]`` or ``[n, height, width, 3]``.

    Raises:
        ValueError: for events that are no images, or an ``image_shape`` that does not hold them.
    """
    x = x if isinstance(x, np.ma.MaskedArray) else np.asarray(x)
    event = x.shape[1:]
    shape = tuple(image_shape) if image_shape is not None else event
    if image_shape is not None and math.prod(shape) != math.prod(event):
        raise ValueError(
            f"image_shape {list(shape)} has {math.prod(shape)} entries, the examples of shape {list(event)} have "
            f"{math.prod(event)}; give the height and width that were flattened"
        )
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[-1] not in (1, 3)):
        raise ValueError(
            f"examples of shape {list(shape)} are no images; give image_shape=(height, width), or with 1 or 3 channels last, "
            "and for tables use plots.responses, item_fit or item_curves"
        )
    return x.reshape(-1, *(shape[:2] if shape[-1] == 1 and len(shape) == 3 else shape))


def scale(images: np.ndarray, distribution: Any, cmap: str) -> Scale:
    """The limits of the family where it has some, else those of the data, or of what is shown where there are none.

    Colour images of real numbers run from 0 to 1, bytes to 255, unless they clearly do something else.

    Raises:
        ValueError: for an unknown colour map.
    """
    checks.one_of(cmap, "cmap", matplotlib.colormaps)
    known = ask.support(distribution)
    if known is not None:
        return Scale(*known, cmap)
    seen = np.ma.compressed(images) if isinstance(images, np.ma.MaskedArray) else np.ravel(images)
    seen = seen[np.isfinite(seen)] if np.issubdtype(seen.dtype, np.floating) else seen
    if not seen.size:
        return Scale(0.0, 1.0, cmap)
    # A few pixels of noise must not take the whole scale.
    low, high = (float(v) for v in np.percentile(seen, (0.5, 99.5)))
    if images.ndim == 4:
        if np.issubdtype(images.dtype, np.integer):
            low, high = 0.0, 255.0 if images.dtype == np.uint8 else float(seen.max())
        elif low >= -0.5 and high <= 1.5:
            low, high = 0.0, 1.0
    return Scale(low, high if high > low else low + 1.0, cmap)


def draw(axes: Axes, image: np.ndarray, limits: Scale) -> None:
    """One image, its missing pixels tinted."""
    if image.ndim == 3:
        shown = np.clip((np.ma.getdata(image) - limits.low) / (limits.high - limits.low), 0.0, 1.0)
        missing = np.ma.getmaskarray(image).any(-1, keepdims=True)
        axes.imshow(np.where(missing, to_rgb(style.MISSING), shown), interpolation="nearest")
    else:
        cmap = matplotlib.colormaps[limits.cmap].with_extremes(bad=style.MISSING)
        axes.imshow(image, cmap=cmap, vmin=limits.low, vmax=limits.high, interpolation="nearest")


def legend(limits: Scale, images: np.ndarray) -> str:
    """Words for the scale, and for the tint where something is missing."""
    low, high = style.number(limits.low, 3), style.number(limits.high, 3)
    start, end = {"gray_r": ("white ", "black "), "gray": ("black ", "white ")}.get(
        limits.cmap, (f"{limits.cmap} from ", "to ")
    )
    words = [f"colours from {low} to {high}"] if images.ndim == 4 else [f"{start}{low}", f"{end}{high}"]
    return ", ".join(words + ["pink: missing"] * bool(np.ma.getmaskarray(images).any()))


def rows_of_images(rows: list[Row], limits: Scale, *, title: str = "", column_names: tuple[str, ...] = ()) -> Figure:
    """The figure: everything placed in inches, one axes for each image.

    Raises:
        ValueError: for more columns than a page holds.
    """
    columns = max(len(row.images) for row in rows)
    height, width = rows[0].images.shape[1:3]
    side = max(0.06 * max(len(row.name) for row in rows) + _EDGE, _EDGE)
    cell = min(_CELL, (style.WIDTH - side - _EDGE) / columns, _TALLEST / len(rows) * width / height)
    if cell < _MIN_CELL:
        raise ValueError(
            f"{len(rows)} rows of {columns} images would be {cell:.2f} inches wide each; show fewer, about 10 columns and 10 rows"
        )
    tall = cell * height / width
    across = max(side + columns * cell + _EDGE, 3.0)
    title = style.wrapped(title, across)
    head = 0.14 * len(title.splitlines()) + 0.16 * bool(column_names) + _EDGE
    down = head + len(rows) * tall + _BREAK * sum(row.apart for row in rows) + 0.2
    figure = style.SelfDrawing(figsize=(across, down))
    left = side + (across - side - columns * cell - _EDGE) / 2
    top = down - head
    for i, row in enumerate(rows):
        top -= _BREAK * row.apart
        for j, image in enumerate(row.images):
            x, y = left + j * cell, top - tall + _GAP
            axes = figure.add_axes((x / across, y / down, (cell - _GAP) / across, (tall - _GAP) / down))
            draw(axes, image, limits)
            axes.set(xticks=[], yticks=[])
            framed = j in row.framed
            axes.spines[:].set(color=style.VERMILLION if framed else style.FAINT, linewidth=1.4 if framed else 0.6)
            if i == 0 and column_names:
                axes.set_title(column_names[j], fontsize=style.SMALL, pad=3)
        figure.text(
            (left - 0.06) / across, (top - tall / 2) / down, row.name, fontsize=style.SMALL, ha="right", va="center"
        )
        top -= tall
    figure.suptitle(title, fontsize=style.TEXT, x=left / across, ha="left", y=1 - 0.04 / down, va="top")
    words = legend(limits, np.ma.concatenate([row.images for row in rows]))
    figure.text(left / across, 0.05 / down, words, fontsize=style.SMALL, color=style.GREY, va="bottom")
    return figure
