"""Reports the precision that data lose in the default float type."""

import jax.numpy as jnp
import numpy as np

# Entries that the report of lost precision sorts.
_SORTED = 2**22
# The share of distinct values or of spread whose loss is reported.
_TOLERATED = 0.01
# Units in the last place that numbers of different value are apart.
_ROUNDING = 8


def lost_precision(x: np.ndarray, mask: np.ndarray | None = None) -> list[str]:
    """Describes the columns (positions of an event) that the default float type would make coarser.

    A column is listed if it loses more than 1 % of its distinct values or of its standard deviation.
    Distinct values are counted in evenly spaced rows if the array is large.

    Args:
        x: ``[n, *event]`` numbers of a wider type, all finite where observed.
        mask: ``[n, *event]``, True where observed.

    Examples:
        >>> lost_precision(np.array([[1.7e9, 1.0], [1.7e9 + 1, 2.0], [1.7e9 + 2, 3.0]]))
        ['column 0 keeps 1 of 3 distinct values']
    """
    kind = jnp.zeros(()).dtype
    if x.ndim == 0 or not x.size or not _is_wider(x, kind):
        return []
    size = x.size // len(x)
    rows = slice(None, None, -(-x.size // max(_SORTED, 2 * size)))
    exact = x[rows].reshape(-1, size)
    hidden = None if mask is None else ~np.asarray(mask)[rows].reshape(exact.shape)
    with np.errstate(over="ignore"):
        rounded = exact.astype(kind)
    if (rounded == exact).all():
        return []
    before, after = (_distinct(values, hidden) for values in (exact, rounded))
    spread, new_spread = (_spread(values, hidden) for values in (exact, rounded))
    problems = []
    fewer = after < (1 - _TOLERATED) * before
    for column in np.flatnonzero(fewer | (abs(new_spread - spread) > _TOLERATED * spread)):
        index = np.unravel_index(column, x.shape[1:])
        where = f"column {column}" if x.ndim == 2 else f"entry {tuple(map(int, index))}"
        problems.append(
            f"{where} keeps {after[column]} of {before[column]} distinct values"
            if fewer[column]
            else f"{where} has standard deviation {new_spread[column]:.4g} instead of {spread[column]:.4g}"
        )
    return problems


def _distinct(values: np.ndarray, hidden: np.ndarray | None) -> np.ndarray:
    ordered = np.sort(values if hidden is None else np.where(hidden, np.inf, values), axis=0)
    low, high = ordered[:-1], ordered[1:]
    if values.dtype.itemsize <= 4 or values.dtype.kind != "f":
        changes = high != low
    else:
        # Sums such as 0.1 + 0.2 and 0.3 differ by rounding alone.
        with np.errstate(invalid="ignore"):
            changes = high - low > _ROUNDING * np.spacing(np.abs(high))
    return (changes & (high < np.inf)).sum(axis=0) + 1


def _spread(values: np.ndarray, hidden: np.ndarray | None) -> np.ndarray:
    # About the first row: far from 0 the mean itself would be rounded.
    origin = values[0] if hidden is None else values[(~hidden).argmax(axis=0), np.arange(values.shape[1])]
    centered = np.subtract(values, origin, dtype=np.float64)
    if hidden is None:
        return centered.std(axis=0)
    return np.ma.filled(np.ma.masked_array(centered, hidden).std(axis=0), 0.0)


def _is_wider(x: np.ndarray, kind: np.dtype) -> bool:
    """Whether the float type ``kind`` may round numbers of ``x``."""
    if x.dtype.kind in "iu":
        return 8 * x.dtype.itemsize > jnp.finfo(kind).nmant + 1
    return x.dtype.kind == "f" and x.dtype.itemsize > kind.itemsize
