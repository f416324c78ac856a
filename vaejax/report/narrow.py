"""From the float64 table of a file to the float32 rows that a model is trained on."""

from typing import Any

import numpy as np

from vaejax import data
from vaejax.arrays import rounded_entries
from vaejax.data.describe import counted_entries, entry_moments
from vaejax.data.precision import entry_names, warn_of_rounding
from vaejax.types import Batch

_REMEDY = "subtract a constant from them, or leave them out (without=)"


def narrowed(dataset: data.Dataset, *, shift: bool) -> tuple[data.Dataset, np.ndarray | None]:
    """Returns the dataset with x in float32 where it was float64, and what was subtracted from its entries.

    Numbers far from 0 relative to their spread, such as dates in seconds, lose their last digits in float32. With
    ``shift``, a constant near the mean is subtracted from such entries first, in float64. Densities stay the same.

    Args:
        dataset: as `vaejax.data.load` reads it with ``dtype="float64"``; integers stay integers unless they are shifted.
        shift: whether the entries of an example may be shifted.

    Returns:
        The dataset, and ``[*event]`` float64 offsets, or None where nothing was subtracted.

    Raises:
        ValueError: numbers beyond float32.

    Warns:
        UserWarning: entries that float32 rounds all the same.

    Examples:
        >>> x = np.array([[1.7e9 + 0.25], [1.7e9 + 0.5]])
        >>> rows, offset = narrowed(data.Dataset(Batch(x), Batch(x), Batch(x), None, None, "dates"), shift=True)
        >>> rows.train.x.tolist(), offset.tolist()
        ([[-0.125], [0.125]], [1700000000.375])
    """
    if dataset.train.x.dtype not in (np.float64, np.int32):
        return dataset, None
    parts = dataset[:3]
    x = np.concatenate([np.asarray(part.x) for part in parts])
    mask = None
    if any(counted_entries(part) is not None for part in parts):
        mask = np.concatenate([_counted(part) for part in parts])
    rounded, offset = rounded_entries(x, mask, dtype=np.float32, integers=True), None
    if shift and rounded.any():
        offset = np.where(rounded, _center(dataset.train), 0.0)
        rounded = rounded_entries(x - offset, mask, dtype=np.float32, integers=True)
    shifted = [_shifted(part, offset, dataset) for part in parts]
    remedy = _REMEDY if shift else f"use --standardize yes where the likelihood is normal, {_REMEDY}"
    warn_of_rounding(dataset.name, dataset.columns, rounded, remedy)
    if x.dtype == np.int32 and offset is None:
        return dataset, None
    train, validation, test = shifted
    return dataset._replace(train=train, validation=validation, test=test), offset


def shift_remark(columns: Any, offset: Any) -> str | None:
    """Returns a line for the terminal about entries that were shifted, or None where none was."""
    if offset is None:
        return None
    shifted = np.asarray(offset) != 0
    names = shown_columns(columns, offset)
    which = f"{int(shifted.sum())} entries of an example" if names is None else entry_names(names, shifted)
    return f"far from 0, and therefore shifted before float32: {which}"


def shown_columns(columns: Any, offset: Any) -> Any:
    """The names of columns, with what was subtracted from them.

    Examples:
        >>> shown_columns(("time", "speed"), (1.7e9, 0.0))
        ('time − 1700000000', 'speed')
    """
    if offset is None or np.ndim(offset) != 1:
        return columns
    names = columns or tuple(f"x_{j}" for j in range(len(offset)))
    return tuple(f"{name} − {value:.15g}" if value else name for name, value in zip(names, offset))


def _counted(batch: Batch) -> np.ndarray:
    counted = counted_entries(batch)
    return np.ones(batch.x.shape, bool) if counted is None else counted


def _center(batch: Batch) -> np.ndarray:
    """``[*event]``: the means of the observed values, rounded to a digit of the standard deviation, which reads better."""
    mean, deviation = entry_moments(batch)
    digit = 10.0 ** np.floor(np.log10(np.where(deviation > 0, deviation, 1.0)))
    return np.where((deviation > 0) & (digit >= 1), np.round(mean / digit) * digit, mean)


def _shifted(batch: Batch, offset: np.ndarray | None, dataset: data.Dataset) -> Batch:
    x: Any = np.asarray(batch.x, np.float64) - (0.0 if offset is None else offset)
    if batch.mask is not None:
        x = np.where(batch.mask, x, 0.0)
    beyond = (np.abs(x) > np.finfo(np.float32).max) & _counted(batch)
    if beyond.any():
        names = entry_names(dataset.columns, beyond.any(axis=0))
        raise ValueError(f"{dataset.name}: {names} holds {x[beyond][0]:g}, which is beyond float32; rescale the data")
    with np.errstate(over="ignore"):  # only examples of weight 0 may lie beyond float32
        return batch._replace(x=x.astype(np.float32))
