"""Where the rows of a dataset go: at random by a seed, or by position in blocks."""

import math
from typing import Any

import numpy as np

from vaejax import checks

PARTS = ("train", "validation", "test")


def fractions(split: Any) -> tuple[float, float, float]:
    """Returns ``split`` if it is three fractions that sum to 1, the first above 0; a part of 0 stays empty.

    Examples:
        >>> fractions([0.5, 0.25, 0.25])
        (0.5, 0.25, 0.25)
    """
    wanted = "three numbers that sum to 1 (train above 0, validation and test at least 0), such as (0.7, 0.1, 0.2)"
    try:
        values = tuple(float(part) for part in split)
    except (TypeError, ValueError):
        raise TypeError(f"split= must be {wanted}, got {split!r}") from None
    sums = abs(math.fsum(values) - 1) < 1e-6  # False for NaN
    if len(values) != 3 or not sums or values[0] <= 0 or min(values) < 0:
        raise ValueError(f"split= must be {wanted}, got {split!r}")
    return values


def permutation(n: int, seed: int) -> np.ndarray:
    """The order of n rows that belongs to ``seed``: always the same, whatever the version of numpy.

    Raises:
        TypeError, ValueError: a seed that is no integer from 0.

    Examples:
        >>> permutation(6, 0).tolist()
        [3, 2, 1, 0, 4, 5]
    """
    seed = checks.seed(seed, "seed=")
    # Raw words of a bit generator: numpy promises that their stream stays, and does not promise it of Generator.permutation.
    words = np.asarray(np.random.PCG64(seed).random_raw(n))
    return np.argsort(words, kind="stable")


def cut(rows: np.ndarray, shares: tuple[float, ...]) -> list[np.ndarray]:
    """Cuts ``rows`` into runs whose lengths are in proportion to ``shares``, each end rounded to the nearest row.

    Examples:
        >>> [part.tolist() for part in cut(np.arange(5), (0.7, 0.1, 0.2))]
        [[0, 1, 2, 3], [], [4]]
    """
    ends = np.cumsum(shares) / math.fsum(shares) * len(rows)
    return np.split(rows, np.floor(ends[:-1] + 0.5).astype(int))


def blocks(n: int) -> dict[str, np.ndarray]:
    """By position: of every hundred consecutive rows the first 70 train, the next 10 validate, the last 20 test.

    Examples:
        >>> {name: (len(rows), int(rows[0])) for name, rows in blocks(200).items()}
        {'train': (140, 0), 'validation': (20, 70), 'test': (40, 80)}
    """
    turn = np.arange(n) // 10 % 10
    return {name: np.flatnonzero(chosen) for name, chosen in zip(PARTS, (turn < 7, turn == 7, turn > 7))}
