"""Numbers that a narrower type does not hold: refused where they are integers, reported where float32 rounds a column."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vaejax import checks
from vaejax.data.errors import DataFileError
from vaejax.data.numpy_files import names_of

# The share of distinct values, or of the spread, that a column may lose without a warning.
_LOSS = 0.01
# Rows that are compared. In millions of them float32 merges some values of any column, near 0 too, and that does no harm.
_SAMPLED = 2000
# Standard deviations from 0 beyond which all rows are compared.
_FAR = 64.0


def refuse_rounded(x: np.ndarray, place: Callable[[int, tuple[int, ...]], str]) -> None:
    """Raises where float64 does not hold an integer exactly.

    Args:
        x: ``[n, *event]`` integers or floats of any size.
        place: ``(row, entry) -> `` words for the message where an entry stands.

    Raises:
        DataFileError: naming the place and the value.
    """
    if x.dtype.itemsize < 8 or x.dtype == np.float64:
        return
    large = (x >= 2**53) | (x <= -(2**53))
    for index in np.argwhere(large):
        row, *entry = index.tolist()
        value = x[(row, *entry)]
        if np.isfinite(value) and int(np.float64(value)) != int(value):
            raise DataFileError(
                f"{place(row, tuple(entry))} is {int(value)}, which float64 rounds to {int(np.float64(value))}; use identifiers as "
                "labels, leave them out (without=), or rescale the data"
            )


def rounded_entries(x: Any, mask: Any = None) -> np.ndarray:
    """``[*event]``: True for the entries of an example that float32 changes too much.

    These lose more than 1 % of their distinct values or of their standard deviation over the examples, or are whole
    numbers of which one is rounded. Values near 0 relative to their spread are compared in 2000 rows at most.

    Args:
        x: ``[n, *event]`` numbers.
        mask: of x's shape, True where observed.

    Examples:
        >>> rounded_entries(np.array([[0.1, 1.7e9 + 0.1], [0.2, 1.7e9 + 0.2], [0.3, 1.7e9 + 0.3]]))
        array([False,  True])
    """
    x = np.asarray(x)
    event = x.shape[1:]
    if x.dtype.kind not in "iuf" or (x.dtype.kind != "f" and x.dtype.itemsize < 4) or x.dtype.itemsize < 4:
        return np.zeros(event, bool)
    if x.dtype == np.float32 or not len(x):
        return np.zeros(event, bool)
    values = x.reshape(len(x), -1).astype(np.float64)
    if mask is not None:
        values = np.where(np.asarray(mask).reshape(values.shape), values, np.nan)
    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # columns without any value
        narrow = values.astype(np.float32).astype(np.float64)
        observed = ~np.isnan(values)
        changed = observed & (narrow != values)
        whole = changed.any(axis=0) & (~observed | (values == np.floor(values))).all(axis=0)
        spread, narrow_spread = np.nanstd(values, axis=0), np.nanstd(narrow, axis=0)
        varied = np.nanmax(values, axis=0) > np.nanmin(values, axis=0)
        other = varied & (np.abs(narrow_spread - spread) > _LOSS * spread)
        step = -(-len(values) // _SAMPLED)
        fewer = _loses_values(values[::step], narrow[::step])
        far = np.flatnonzero((np.nanmax(np.abs(values), axis=0) > _FAR * spread) & changed.any(axis=0) & (step > 1))
        fewer[far] |= _loses_values(values[:, far], narrow[:, far])
    return (whole | other | fewer).reshape(event)


def _loses_values(values: np.ndarray, narrow: np.ndarray) -> np.ndarray:
    return _num_distinct(narrow) < (1 - _LOSS) * _num_distinct(values)


def _num_distinct(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values, axis=0)  # NaN last
    steps = (ordered[1:] != ordered[:-1]) & ~np.isnan(ordered[1:])
    return steps.sum(axis=0) + ~np.isnan(ordered[0])


def entry_names(columns: Sequence[str] | None, chosen: np.ndarray) -> str:
    """The names of the chosen entries of an example, or where they stand, for a message."""
    if columns is not None:
        return names_of(tuple(name for name, c in zip(columns, chosen) if c))
    entries = [tuple(int(i) for i in entry) for entry in np.argwhere(chosen)[:10]]
    return ", ".join(str(e[0] if len(e) == 1 else e) for e in entries) + (", …" if chosen.sum() > 10 else "")


def warn_of_rounding(name: str, columns: Sequence[str] | None, chosen: np.ndarray, remedy: str) -> None:
    """Warns, where any entry is chosen, that float32 rounds it."""
    if chosen.any():
        plural = int(chosen.sum()) > 1
        what = f"column{'s' * plural}" if columns is not None else f"entr{'ies' if plural else 'y'}"
        warnings.warn(
            f"{name}: float32 rounds the values of {what} {entry_names(columns, chosen)} (distinct values or more than 1 % of their "
            f"spread are lost); {remedy}",
            stacklevel=checks.outside(),
        )
