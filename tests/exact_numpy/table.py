"""The table's machinery: rows, the error of a value, slopes by differences."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

# [K, *batch, d]: long, square, deep and odd.
SHAPES = ((20000, 6, 2), (100, 100, 8), (64, 100, 10), (50, 20, 50), (37, 13, 5))
# What the unmarked test computes; a row without any is for the slow one.
FEW = SHAPES[:1]
# Largest difference, as a share of the largest exact number (or of 1).
TOLERANCE = 1e-4
# Coefficients of order K² multiply the rounding of float32.
LOOSE = {"jackknife 2": 5e-3}


class Row(NamedTuple):
    """(rng, shape) -> triples of a name, what the package computes, and the exact value.

    Compilation takes nearly all of the time, so ``few`` are the shapes of the unmarked test.
    """

    function: Callable[..., Iterator[tuple[str, Any, Any]]]
    few: tuple
    shapes: tuple


ROWS: dict[str, Row] = {}


def row(few: tuple = FEW, shapes: tuple = SHAPES) -> Callable:
    def register(function: Callable) -> Callable:
        ROWS[f"{function.__module__.rsplit('.', 1)[-1]}.{function.__name__}"] = Row(function, few, shapes)
        return function

    return register


def single(array: Any) -> np.ndarray:
    return np.asarray(array, np.float32)


def double(*arrays: Any) -> Any:
    doubled = tuple(np.asarray(array, np.float64) for array in arrays)
    return doubled if len(doubled) > 1 else doubled[0]


def error(value: Any, exact: Any) -> float:
    value, exact = double(value, exact)
    if value.shape != exact.shape:
        return math.inf
    gap = np.abs(value - exact).max() / max(1.0, np.abs(exact).max())
    return float(gap) if np.isfinite(gap) else math.inf


def slope(function: Callable, arguments: tuple, directions: tuple, step: float = 1e-5) -> np.ndarray:
    """The derivative of a NumPy function along directions, by central differences in float64."""
    ahead, behind = (
        function(*(a + sign * step * d for a, d in zip(double(*arguments, 0.0), directions))) for sign in (1, -1)
    )
    return (ahead - behind) / (2 * step)


def along(gradient: Any, directions: tuple) -> float:
    """The inner product of a gradient with a direction."""
    return sum(float((double(g) * d).sum()) for g, d in zip(jax.tree.leaves(gradient), directions))


def tolerance(name: str) -> float:
    return next((loose for part, loose in LOOSE.items() if part in name), TOLERANCE)


def run(every_shape: bool, only: str = "") -> dict[str, float]:
    """The error of each value of the table, as a share of its tolerance."""
    errors = {}
    for name, (function, few, shapes) in ROWS.items():
        if only not in name:
            continue
        for shape in shapes if every_shape else few:
            rng = np.random.default_rng(20261129)
            for part, value, exact in function(rng, shape):
                label = f"{name} {part} {list(shape)}"
                errors[label] = error(value, exact) / tolerance(label)
        jax.clear_caches()
    return errors
