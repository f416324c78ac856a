"""Entries of an example whose numbers a narrower float type does not hold well."""

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np

# The share of distinct values, or of the spread, that an entry may lose.
_LOSS = 0.01
# Rows that are compared at most. In millions of them float32 merges some values of any column, near 0 too, and that does no harm.
_SAMPLED = 2000
# Entries that are compared, and rows at least, before columns far from 0 are compared as a whole.
_COMPARED, _FEWEST = 2**18, 200
# Standard deviations from 0 beyond which all rows are compared.
_FAR = 64.0
# Units in the last place by which sums such as 0.1 + 0.2 and 0.3 may differ without being distinct.
_ROUNDING = 8


def rounded_entries(x: Any, mask: Any = None, *, dtype: Any = None, integers: bool = False) -> np.ndarray:
    """``[*event]``: True for the entries of an example that a float type changes too much.

    These lose more than 1 % of their distinct values or of their standard deviation over the examples. Values near 0
    relative to their spread are compared in 2000 rows at most.

    Args:
        x: ``[n, *event]`` numbers.
        mask: of x's shape, True where observed.
        dtype: the float type; None is the default one.
        integers: include entries that are all whole numbers if one of these is rounded.

    Examples:
        >>> rounded_entries(np.array([[0.1, 1.7e9 + 0.1], [0.2, 1.7e9 + 0.2], [0.3, 1.7e9 + 0.3]]))
        array([False,  True])
    """
    x, kind = np.asarray(x), np.dtype(jnp.zeros(()).dtype if dtype is None else dtype)
    event = x.shape[1:]
    if not len(x) or not _is_wider(x.dtype, kind):
        return np.zeros(event, bool)
    if x.dtype.kind in "iu" and max(abs(int(x.min())), abs(int(x.max()))) <= 2 ** (jnp.finfo(kind).nmant + 1):
        return np.zeros(event, bool)
    size = max(x.size // len(x), 1)
    step = -(-len(x) // int(np.clip(_COMPARED // size, _FEWEST, _SAMPLED)))
    flat, hidden = x.reshape(len(x), -1), None if mask is None else ~np.asarray(mask).reshape(len(x), -1)
    columns = np.arange(flat.shape[1])
    loses, is_far, whole = _losses(flat, hidden, columns, kind, 1 if integers else step)
    far = np.flatnonzero(is_far & ~loses) if step > 1 and not integers else columns[:0]
    if len(far):
        loses[far] |= _losses(flat, hidden, far, kind, 1)[0]
    return ((whole & integers) | loses).reshape(event)


def _losses(
    flat: np.ndarray, hidden: np.ndarray | None, columns: np.ndarray, kind: np.dtype, step: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each column: whether it loses too much, lies far from 0, and holds whole numbers of which one is rounded."""
    values = flat[::step, columns].astype(np.float64)
    if hidden is not None:
        values = np.where(hidden[::step, columns], np.nan, values)
    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # columns without any value
        narrow = values.astype(kind).astype(np.float64)
        observed = ~np.isnan(values)
        changed = observed & (narrow != values)
        if not changed.any():
            return (np.zeros(len(columns), bool),) * 3
        whole = changed.any(axis=0) & (~observed | (values == np.floor(values))).all(axis=0)
        deviation, smallest, largest = (
            (np.nanstd, np.nanmin, np.nanmax) if hidden is not None else (np.std, np.min, np.max)
        )
        spread, narrow_spread = deviation(values, axis=0), deviation(narrow, axis=0)
        varied = largest(values, axis=0) > smallest(values, axis=0)
        other = varied & (np.abs(narrow_spread - spread) > _LOSS * spread)
        is_far = (largest(np.abs(values), axis=0) > _FAR * spread) & changed.any(axis=0)
        rows = slice(None, None, -(-len(values) // _SAMPLED) if step == 1 else 1)
        fewer = _loses_values(values[rows], narrow[rows])
        if step == 1:
            exact = np.flatnonzero(is_far & ~fewer)
            fewer[exact] |= _loses_values(values[:, exact], narrow[:, exact])
    return other | fewer, is_far, whole


def _is_wider(dtype: np.dtype, kind: np.dtype) -> bool:
    """Whether the float type ``kind`` may round numbers of ``dtype``."""
    if dtype.kind in "iu":
        return 8 * dtype.itemsize > jnp.finfo(kind).nmant + 1
    return dtype.kind == "f" and dtype.itemsize > kind.itemsize


def _loses_values(values: np.ndarray, narrow: np.ndarray) -> np.ndarray:
    # What rounding alone tells apart is one value before, too.
    return _num_distinct(narrow, 0) < (1 - _LOSS) * _num_distinct(values, _ROUNDING)


def _num_distinct(values: np.ndarray, units: int) -> np.ndarray:
    ordered = np.sort(values, axis=0)  # NaN last
    steps = ordered[1:] - ordered[:-1] > units * np.spacing(np.abs(ordered[1:]))
    return steps.sum(axis=0) + ~np.isnan(ordered[0])
