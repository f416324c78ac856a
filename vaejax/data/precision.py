"""Numbers that a narrower type does not hold: refused where they are integers, reported where float32 rounds a column."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from vaejax import checks
from vaejax.data.errors import DataFileError
from vaejax.data.numpy_files import names_of


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
