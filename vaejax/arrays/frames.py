"""Converts frames and series of pandas and polars, neither of which is imported here."""

import sys
from typing import Any

import numpy as np

from vaejax.arrays.values import check_equal, check_real


def from_frame(value: Any, name: str, categories: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the values of a series or frame of pandas or polars, and where entries are missing."""
    library = sys.modules[type(value).__module__.partition(".")[0]]
    converter = {"pandas": _pandas, "polars": _polars}[library.__name__]
    if hasattr(value, "collect"):
        raise TypeError(f"{name} must be a frame with data, got {type(value).__name__}. Use {name}.collect()")
    if not isinstance(value, library.DataFrame):
        return converter(library, library.Series(value), name, categories)
    columns = [value.iloc[:, i] if library.__name__ == "pandas" else value[:, i] for i in range(value.shape[1])]
    converted = [
        converter(library, column, f"column {label!r} of {name}", False)
        for label, column in zip(value.columns, columns)
    ]
    if not converted:
        return np.zeros(value.shape, np.float32), None
    values = np.stack([column for column, _ in converted], axis=1)
    for i, (column, _) in enumerate(converted):
        check_equal(column, values[:, i], f"column {value.columns[i]!r} of {name}")
    if all(missing is None for _, missing in converted):
        return values, None
    none = np.zeros(len(values), bool)
    return values, np.stack([none if missing is None else missing for _, missing in converted], axis=1)


def _pandas(library: Any, series: Any, name: str, categories: bool) -> tuple[np.ndarray, np.ndarray | None]:
    dtype = series.dtype
    if isinstance(dtype, library.CategoricalDtype):
        return _codes(series.cat.codes.to_numpy(), name, categories), None
    if isinstance(dtype, np.dtype | library.SparseDtype):
        return np.asarray(series), None
    kind = getattr(dtype, "numpy_dtype", np.dtype(object))
    check_real(kind, name)
    missing = series.isna().to_numpy()
    return series.to_numpy(dtype=kind, na_value=0), missing if missing.any() else None


def _polars(library: Any, series: Any, name: str, categories: bool) -> tuple[np.ndarray, np.ndarray | None]:
    if series.dtype in (library.Categorical, library.Enum):
        codes = series.to_physical().cast(library.Int64).fill_null(-1)
        return _codes(codes.to_numpy(), name, categories), None
    if series.dtype == library.Decimal:
        series = series.cast(library.Float64)
    missing = series.is_null().to_numpy()
    if not missing.any():
        return series.to_numpy(), None
    if not (series.dtype.is_numeric() or series.dtype == library.Boolean):
        return series.to_numpy(), None
    return series.fill_null(False if series.dtype == library.Boolean else 0).to_numpy(), missing


def _codes(codes: np.ndarray, name: str, categories: bool) -> np.ndarray:
    if not categories:
        raise TypeError(
            f"{name} must hold numbers, got categories. Give it as a context of its own, "
            "Batch(x, context=series), or convert it to codes or one-hot columns"
        )
    if (codes < 0).any():
        raise ValueError(
            f"{name} must have a category in every row, got none in row {int(np.argmax(codes < 0))}. "
            "Remove those rows, or add a category for missing values"
        )
    return codes.astype(np.int32)
