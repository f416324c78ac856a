"""Pictures of one white shape on black whose five factors are known: drawn when they are wanted, the same on every machine."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vaejax import checks
from vaejax.data.datasets import Dataset, batches
from vaejax.data.splits import PARTS, cut, permutation

FACTORS = ("shape", "scale", "orientation", "x", "y")
_SHAPES = ("square", "ellipse", "heart")
# Subpixels across a pixel: 16 of them give 17 grey levels.
_FINE = 4
# Entries of the fine grid drawn at once.
_ENTRIES = 2**21
# The largest sprite's circumscribed circle and the smallest one's, in widths of the image.
_RADII = (0.125, 0.25)


class Sprites(NamedTuple):
    """Pictures and what they are pictures of.

    Attributes:
        images: ``[n, size, size]`` uint8, 0 to ``levels``.
        factors: ``[n, 5]`` int32, classes 0, 1, … of each factor.
        factor_names: shape, scale, orientation, x, y.
        factor_sizes: how many classes each has.
        shapes: the names of the classes of shape.
        levels: the grey level of white: 255, or 1 for binary images.
    """

    images: np.ndarray
    factors: np.ndarray
    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]
    shapes: tuple[str, ...]
    levels: int


def sprites(
    *,
    size: int = 32,
    shapes: Sequence[str] = _SHAPES,
    num_scales: int = 4,
    num_orientations: int = 6,
    num_x: int = 8,
    num_y: int = 8,
    count: int | None = None,
    seed: int = 0,
    binary: bool = False,
) -> Sprites:
    """White shapes on black, by shape, scale, orientation and position: all combinations, or a random choice of them.

    A shape fits into a circle of radius 1/8 (scale 0) to 1/4 (the last) of the width, whose centre goes where that of the largest stays
    inside. Orientation k of N turns it by k/N of a right angle, counterclockwise: within a right angle each shape looks different at
    every orientation, so that at the defaults no two sets of factors give the same picture (coarser or binary images, or finer factors,
    may coincide). A pixel's grey is the share of it that is covered (of 16
    subpixels).

    Args:
        size: width and height in pixels, at least 8.
        shapes: of square, ellipse, heart, triangle.
        num_scales: classes of scale, evenly spaced from smallest to largest.
        num_orientations: classes of orientation.
        num_x: classes of x, from left to right.
        num_y: classes of y, from top to bottom.
        count: None for the full grid, in order, y changing fastest; else this many of its images at random, none twice.
        seed: of that choice; the same on every machine and whatever the version of NumPy.
        binary: 0 and 1 in place of greys: covered by half or not.

    Raises:
        ValueError: an unknown shape, or one named twice; sizes below 1; more images than the grid has.

    Source:
        After dSprites (Matthey, Higgins, Hassabis & Lerchner 2017), drawn anew.

    Examples:
        >>> few = sprites(size=16, num_orientations=1, count=10)
        >>> few.images.shape, few.factors.shape, dict(zip(few.factor_names, few.factor_sizes))
        ((10, 16, 16), (10, 5), {'shape': 3, 'scale': 4, 'orientation': 1, 'x': 8, 'y': 8})
    """
    if checks.positive_int(size, "size") < 8:
        raise ValueError(f"size must be at least 8 pixels, got {size}: smaller hearts are blots")
    chosen = (shapes,) if isinstance(shapes, str) else tuple(shapes)
    for shape in chosen:
        checks.one_of(shape, "shape", _INSIDE)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"shapes must name each shape once, got {chosen}; known: {', '.join(_INSIDE)}")
    asked = {"num_scales": num_scales, "num_orientations": num_orientations, "num_x": num_x, "num_y": num_y}
    sizes = (len(chosen), *(checks.positive_int(value, name) for name, value in asked.items()))
    total = math.prod(sizes)
    rows = np.arange(total)
    if count is not None:
        if checks.positive_int(count, "count") > total:
            raise ValueError(
                f"count={count} is more than the {total} images of the grid; ask for fewer, or for more classes"
            )
        rows = permutation(total, seed)[:count]
    factors = np.stack(np.unravel_index(rows, sizes), axis=1).astype(np.int32)
    cover = _draw(chosen, factors, sizes, size)
    images = (2 * cover >= _FINE**2).astype(np.uint8) if binary else np.rint(cover * (255 / _FINE**2)).astype(np.uint8)
    return Sprites(images, factors, FACTORS, sizes, chosen, 1 if binary else 255)


def load_sprites(directory: Any = None) -> Dataset:
    """The full grid of `sprites` at its defaults, split at random; labels are the shapes."""
    if directory is not None:
        raise ValueError("the sprites are drawn when they are loaded; leave directory out")
    drawn = sprites()
    rows = dict(zip(PARTS, cut(permutation(len(drawn.images), 0), (0.7, 0.1, 0.2))))
    factors = {part: drawn.factors[chosen] for part, chosen in rows.items()}
    return Dataset(
        *batches(drawn.images, rows),
        labels={part: values[:, 0] for part, values in factors.items()},
        levels=drawn.levels,
        name="sprites",
        label_names=drawn.shapes,
        factors=factors,
        factor_names=drawn.factor_names,
        rows=rows,
    )


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) <= 0.5**0.5


def _ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u * u + 4 * v * v <= 1


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # (a² + b² − 1)³ ≤ a²b³, whose smallest circle has centre (0, 1/4) and radius 5/4.
    a, b = 1.25 * u, 1.25 * v + 0.25
    squared, above = a * a, b * b
    beyond = squared + above - 1
    return beyond * beyond * beyond <= squared * above * b


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (v >= -0.5) & (3**0.5 * np.abs(u) + v <= 1)


# In the unit circle, v upwards: (u, v) -> whether it is covered.
_INSIDE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "square": _square,
    "ellipse": _ellipse,
    "heart": _heart,
    "triangle": _triangle,
}


def _draw(shapes: tuple[str, ...], factors: np.ndarray, sizes: tuple[int, ...], size: int) -> np.ndarray:
    """``[n, size, size]``: how many of each pixel's subpixels are covered."""
    cover = np.empty((len(factors), size, size), np.uint8)
    fine = (np.arange(size * _FINE, dtype=np.float32) + 0.5) / (size * _FINE)
    step = max(1, _ENTRIES // len(fine) ** 2)
    for kind, shape in enumerate(shapes):
        mine = np.flatnonzero(factors[:, 0] == kind)
        for rows in np.split(mine, range(step, len(mine), step)):
            u, v = _frame(factors[rows, 1:], sizes[1:], fine)
            inside = _INSIDE[shape](u, v).view(np.uint8)
            across = inside.reshape(-1, size * _FINE, size, _FINE).sum(axis=-1, dtype=np.uint8)
            cover[rows] = across.reshape(-1, size, _FINE, size).sum(axis=-2, dtype=np.uint8)
    return cover


def _frame(factors: np.ndarray, sizes: tuple[int, ...], fine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The subpixels in each sprite's own frame, its circle the unit circle: two arrays ``[n, fine, fine]``, image rows first."""
    scale, orientation, column, row = factors.T
    radius = _spread(*_RADII, sizes[0])[scale, None]
    turn = (np.pi / 2 / sizes[1]) * orientation
    edge = _RADII[1]
    x, y = (_spread(edge, 1 - edge, n)[c] for n, c in ((sizes[2], column), (sizes[3], row)))
    along = (fine - x[:, None]) / radius
    up = (y[:, None] - fine) / radius
    cos, sin = (f(turn).astype(np.float32)[:, None] for f in (np.cos, np.sin))
    u = (cos * along)[:, None, :] + (sin * up)[:, :, None]
    v = (cos * up)[:, :, None] - (sin * along)[:, None, :]
    return u, v


def _spread(low: float, high: float, count: int) -> np.ndarray:
    """``count`` numbers from ``low`` to ``high``; a single one is in the middle."""
    return np.linspace(low, high, count, dtype=np.float32) if count > 1 else np.array([(low + high) / 2], np.float32)
