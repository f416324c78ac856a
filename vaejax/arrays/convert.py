"""Converts arrays of other libraries to arrays of real numbers that JAX takes over unchanged.

Data enter vaejax here: NumPy arrays of any byte order and layout, masked arrays, frames and series of
pandas and polars, tensors (``__array__`` or DLPack) and nested lists of numbers. A value that the
device's type cannot hold is an error. An entry that its library marks as missing (a masked entry,
`pandas.NA`, a null of polars) becomes False in the mask of observed entries. NaN is not such a mark.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.arrays.frames import from_frame
from vaejax.arrays.values import check_equal, check_real, native


class Converted(NamedTuple):
    """An array of another library, converted.

    Attributes:
        values: a `jax.Array` if it was one, else a NumPy array of native byte order.
        mask: of the same shape, False where the source marks an entry as missing; None if none is.
    """

    values: Any
    mask: np.ndarray | None = None


def convert(value: Any, name: str, *, mask: Any = None, categories: bool = False) -> Converted:
    """Returns ``value`` as an array of real numbers that survive the move to the device.

    Args:
        value: an array, frame, series, tensor or nested list of numbers. Arrays of JAX are returned
            as they are.
        name: of the argument, for error messages.
        mask: entries where it is False are not checked.
        categories: accept a categorical series, and return the codes of its categories.

    Returns:
        `Converted`. Floats wider than the device's stay as they are, so that code on the host can
        use their digits. Integers are in the device's type.

    Raises:
        TypeError: not an array of real numbers, a sparse matrix, a list of arrays.
        ValueError: a value that the device's type cannot hold, lists of unequal lengths.

    Examples:
        >>> convert([[1, 2], [3, 4]], "x").values
        array([[1, 2],
               [3, 4]], dtype=int32)
        >>> convert(np.ma.masked_equal([1.0, -9.0], -9.0), "x").mask
        array([ True, False])
    """
    if isinstance(value, jax.Array | jax.ShapeDtypeStruct):
        check_real(value.dtype, name)
        return Converted(value)
    values, missing = _as_numpy(value, name, categories)
    mask = mask if isinstance(mask, np.ndarray) and mask.shape == values.shape else None
    if missing is not None:
        values = np.where(missing, np.zeros((), values.dtype), values)
    return Converted(native(values, name, mask), None if missing is None else ~missing)


def _as_numpy(value: Any, name: str, categories: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The values as a NumPy array, and where the source marks them as missing, if anywhere."""
    if isinstance(value, np.ma.MaskedArray):
        missing = np.ma.getmaskarray(value)
        return np.asarray(value.data), missing if missing.any() else None
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value), None
    if type(value).__module__.partition(".")[0] in ("pandas", "polars"):
        return from_frame(value, name, categories)
    if type(value).__module__.startswith("scipy.sparse"):
        raise TypeError(
            f"{name} must be a dense array, got a sparse {type(value).__name__} of shape "
            f"{list(value.shape)}. Use {name}.toarray() if it fits into memory, or smaller batches of it"
        )
    if isinstance(value, list):
        return _nested_list(value, name), None
    return _tensor(value, name), None


def _nested_list(value: list, name: str) -> np.ndarray:
    if any(np.ndim(entry) and not isinstance(entry, list | tuple) for entry in value):
        raise TypeError(
            f"{name} must be one array, got a list of arrays. Use numpy.stack to join examples, or "
            "vaejax.Batch(x, context=...) for data of several kinds"
        )
    try:
        array = np.asarray(value)
        if array.dtype.kind == "f":
            # NumPy joins integers beyond int64 with others as rounded floats.
            check_equal(np.asarray(value, object), array, name)
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        raise ValueError(
            f"{name} must have rows of equal length, got lists of unequal lengths. Pad them, and mark the "
            "padding with vaejax.Batch(x, mask=...)"
        ) from None
    return array


def _tensor(value: Any, name: str) -> np.ndarray:
    """An object that converts itself: by ``__array__``, else by DLPack."""
    if not hasattr(value, "__array__") and not hasattr(value, "__dlpack__"):
        raise TypeError(
            f"{name} must be an array of numbers, got {type(value).__name__}. Convert it with "
            "numpy.asarray; labels and masks go into vaejax.Batch(x, context=..., mask=...)"
        )
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    errors = []
    for conversion in (np.asarray, np.from_dlpack, lambda tensor: np.asarray(jnp.from_dlpack(tensor))):
        try:
            array = conversion(value)
        except Exception as error:  # libraries raise their own kinds
            errors.append(f"{type(error).__name__}: {error}".splitlines()[0])
            continue
        if array.dtype != object:
            return array
    raise TypeError(
        f"{name} must be an array of numbers, got {type(value).__name__}, which NumPy cannot read "
        f"({errors[0] if errors else 'it becomes an array of objects'}). Convert it to a NumPy array"
    )
