"""Numbers as they come, made into numbers as vaejax wants them: small exact integers, float32, a mask, class codes."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from vaejax import checks
from vaejax.data.cells import exact_number
from vaejax.data.errors import DataFileError, one_line
from vaejax.data.precision import refuse_rounded

_INT32 = np.iinfo(np.int32)


def clean(
    x: np.ndarray,
    place: Callable[[int, tuple[int, ...]], str],
    *,
    whole_numbers: bool = False,
    dtype: DTypeLike = np.float32,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Gives ``x`` a dtype of vaejax's and takes its missing entries out.

    Bools and integers from 0 to 255 become uint8, other integers int32, floats ``dtype``. NaN is a missing entry: False in
    the mask, 0 in x.

    Args:
        x: ``[n, *event]``, bools, integers or floats.
        place: ``(row, entry) -> `` words for the message where an entry stands.
        whole_numbers: whether floats that are all whole are to become integers (they come from text).
        dtype: of floats.

    Returns:
        x, and the mask, or None if nothing is missing.

    Raises:
        DataFileError: an infinite value, one beyond int32 or ``dtype``.

    Examples:
        >>> clean(np.array([[1.0, np.nan]]), lambda row, entry: "", whole_numbers=True)
        (array([[1, 0]], dtype=uint8), array([[ True, False]]))
    """
    if x.dtype.kind in "biu" and (np.dtype(dtype) != np.float64 or _fits_int32(x)):
        return _integers(x, place), None
    refuse_rounded(x, place)
    # float16 would overflow in the comparison with the largest float32.
    x = x if x.dtype.itemsize > 2 else x.astype(np.float32)
    mask = ~np.isnan(x)
    _refuse(np.isinf(x), x, place, "is infinite", "remove the row, or make it NaN (an empty cell) if it is missing")
    wanted = np.dtype(dtype)
    if x.dtype.itemsize > wanted.itemsize:
        _refuse(np.abs(x) > np.finfo(wanted).max, x, place, f"is beyond {wanted}", "rescale the data")
    if mask.all():
        mask = None
    else:
        x = np.where(mask, x, 0)
    if whole_numbers and (x == np.floor(x)).all() and _fits_int32(x):
        return _integers(x.astype(np.int32), place), mask
    return x.astype(wanted), mask


def with_observations(
    mask: np.ndarray | None, count: int, place: Callable[[int, tuple[int, ...]], str], *, drop: bool
) -> np.ndarray:
    """The rows, out of ``count``, in which something is observed.

    Args:
        mask: ``[n, *event]``, or None where nothing is missing.
        count: n.
        place: as in `clean`.
        drop: whether to leave other rows out with a warning, rather than to refuse them.

    Raises:
        DataFileError: a row with nothing observed, unless ``drop``; nothing observed at all.
    """
    seen = np.ones(count, bool) if mask is None else mask.reshape(count, -1).any(axis=1)
    missing = count - int(seen.sum())
    if not missing:
        return np.arange(count)
    first = place(int(np.argmin(seen)), ())
    if not drop or missing == count:
        more = missing - 1
        others = f" ({more} more {'has' if more == 1 else 'have'} none either)" if more else ""
        raise DataFileError(f"{first} has no observed value{others}; remove such rows: they say nothing")
    rows = "1 row without an observed value is" if missing == 1 else f"{missing} rows without an observed value are"
    warnings.warn(f"{rows} left out{'' if missing == 1 else ', the first'}: {first}", stacklevel=checks.outside())
    return np.flatnonzero(seen)


def _fits_int32(x: np.ndarray) -> bool:
    return bool(x.min() >= _INT32.min and x.max() <= _INT32.max)


def _integers(x: np.ndarray, place: Callable[[int, tuple[int, ...]], str]) -> np.ndarray:
    smallest, largest = int(x.min()), int(x.max())
    if smallest >= 0 and largest <= 255:
        return x.astype(np.uint8)
    if not _fits_int32(x):
        bad = (x > _INT32.max) if largest > _INT32.max else (x < _INT32.min)
        _refuse(bad, x, place, "is beyond int32", "rescale the data, or read them with dtype='float64'")
    return x.astype(np.int32)


def _refuse(
    bad: np.ndarray, x: np.ndarray, place: Callable[[int, tuple[int, ...]], str], what: str, remedy: str
) -> None:
    if bad.any():
        row, *entry = (int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
        raise DataFileError(f"{place(row, tuple(entry))} {what} ({x[(row, *entry)]}); {remedy}")


def codes(
    labels: Any, place: Callable[[int, tuple[int, ...]], str], *, numeric: bool = False
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes labels as 0, 1, … in sorted order; text that spells numbers throughout is sorted as numbers.

    Labels of text are classes exactly as they are written: 1, 01 and 1.0 are three. With ``numeric``, they are the numbers that
    they spell, compared without rounding.

    Args:
        labels: ``[n]`` text or numbers.
        place: as in `clean`.
        numeric: whether labels of text are numbers.

    Returns:
        ``[n]`` int32 codes, and the labels they stand for, as they are written first.

    Raises:
        DataFileError: a label that is NaN or infinite; with ``numeric``, text that does not spell a number.

    Warns:
        UserWarning: two classes that differ only in case, surrounding blanks or the spelling of a number.

    Examples:
        >>> codes(("10", "9", "10"), lambda row, entry: "")
        (array([1, 0, 1], dtype=int32), ('9', '10'))
    """
    values = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    text = bool(values) and isinstance(values[0], str)
    classes = dict.fromkeys(values)
    for value in classes:
        if not text and not math.isfinite(value):
            raise DataFileError(
                f"{place(values.index(value), ())}: the label of row {values.index(value)} is {value}; remove the row or label it"
            )
        if text and numeric and exact_number(value) is None:
            raise DataFileError(
                f"{place(values.index(value), ())}: the label {one_line(value)!r} is no number; leave numeric_labels=True out, or "
                "correct the label"
            )
    numbers: dict[Any, Any] = {value: exact_number(value) if text else value for value in classes}
    distinct: list[Any]
    if not text or numeric:
        distinct = sorted(set(numbers.values()))
    else:
        spelled = None not in numbers.values()
        distinct = sorted(classes, key=lambda value: (numbers[value], value) if spelled else value)
        _warn_of_similar(distinct, numbers)
    index = {value: code for code, value in enumerate(distinct)}
    code_of = {value: index[numbers[value] if not text or numeric else value] for value in classes}
    names: dict[int, str] = {}
    for value, code in code_of.items():
        names.setdefault(code, str(value))
    coded = np.fromiter((code_of[value] for value in values), np.int32, len(values))
    return coded, tuple(names[code] for code in range(len(distinct)))


def _warn_of_similar(classes: list[str], numbers: dict[str, Any]) -> None:
    """Says where two classes look the same to people, once."""
    first: dict[Any, str] = {}
    for label in classes:
        alike = label.strip().casefold() if numbers[label] is None else numbers[label]
        other = first.setdefault(alike, label)
        if other != label:
            remedy = (
                "numeric_labels=True joins labels of the same number" if numbers[label] is not None else "correct one"
            )
            warnings.warn(
                f"labels {_quoted(other)} and {_quoted(label)} are different classes, since they are not written alike; if "
                f"they are one class, {remedy}",
                stacklevel=checks.outside(),
            )
            return


def _quoted(label: str) -> str:
    """A label in quotes, its blanks as they are, cut where it is long."""
    return repr(label if len(label) <= 200 else label[:200] + " …")
