"""Checks of NumPy arrays: real numbers that the device's types can represent."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_X64 = "enable 64 bits with jax.config.update('jax_enable_x64', True)"


def native(values: np.ndarray, name: str, mask: np.ndarray | None) -> np.ndarray:
    """The array in native byte order, with integers in the device's type."""
    if values.dtype == object:
        _refuse_objects(values, name)
    check_real(values.dtype, name)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if values.dtype.kind in "iu":
        kind = jax.dtypes.canonicalize_dtype(values.dtype)
        if kind == values.dtype:
            return values
        _check_range(values, jnp.iinfo(kind).min, jnp.iinfo(kind).max, name, kind, mask)
        return _within(values, mask).astype(kind)
    if values.dtype.kind == "f" and values.dtype.itemsize > 4:
        kind = jnp.zeros(()).dtype
        largest = float(jnp.finfo(kind).max)
        _check_range(values, -largest, largest, name, kind, mask)
        if values.dtype.itemsize > 8:
            values = _within(values, mask).astype(np.float64)
    return values


def _within(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Values for a cast: what stands in a hidden entry may not fit the new type."""
    return values if mask is None else np.where(mask, values, np.zeros((), values.dtype))


def _check_range(
    values: np.ndarray, low: float, high: float, name: str, kind: np.dtype, mask: np.ndarray | None
) -> None:
    if not values.size or (np.fmin.reduce(values, axis=None) >= low and np.fmax.reduce(values, axis=None) <= high):
        return
    bad = ((values < low) | (values > high)) & ~np.isinf(values)
    if mask is not None:
        bad &= mask
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        floats = "" if kind.kind == "f" else ", convert them to float64 and standardize them"
        raise ValueError(
            f"{name} must hold values that {kind} can represent, got {values[index]} at index {index}. "
            f"Rescale the data{floats}, or {_X64}"
        )


def check_equal(before: np.ndarray, after: np.ndarray, name: str) -> None:
    """Raises where a cast changed an integer."""
    if before.dtype == object:
        integers = ((entry, number) for entry, number in zip(before.flat, after.flat) if type(entry) is int)
        changed = [entry for entry, number in integers if entry != int(number)]
    elif before.dtype.kind in "iu" and after.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            changed = before[after.astype(before.dtype) != before].tolist()
    else:
        changed = []
    if changed:
        raise ValueError(f"{name} must hold values that float64 can represent, got {changed[0]}. Rescale the data")


def check_real(dtype: Any, name: str) -> None:
    """Raises unless a dtype is one of real numbers, integers or bools."""
    if dtype == jnp.bool_ or (jnp.issubdtype(dtype, jnp.number) and not jnp.issubdtype(dtype, jnp.complexfloating)):
        return
    raise TypeError(
        f"{name} must hold real numbers, integers or bools, got dtype {dtype}. Convert it, e.g. with "
        ".astype('float32'), or code labels as integers 0, 1, …"
    )


def _refuse_objects(values: np.ndarray, name: str) -> None:
    for index, entry in np.ndenumerate(values):
        if isinstance(entry, int) and not isinstance(entry, bool) and abs(entry) >= 2**63:
            raise ValueError(
                f"{name} must hold values that 64-bit integers can represent, got {entry} at index {index}. "
                "Rescale the data"
            )
        if not isinstance(entry, int | float | np.number | np.bool_):
            missing = entry is None or type(entry).__name__ == "NAType"
            advice = "Mark missing entries with Batch(x, mask=...)" if missing else "Code it as a number"
            raise TypeError(
                f"{name} must hold real numbers, got dtype object with {entry!r} at index {index}. {advice}"
            )
    raise TypeError(f"{name} must hold real numbers, got dtype object. Convert it, e.g. with .astype(float)")
