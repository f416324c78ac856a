"""Datasets from one's own files: arrays (.npy, .npz) and tables (.csv, .tsv, .txt)."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaejax import checks
from vaejax.arrays import rounded_entries
from vaejax.data.cells import MISSING
from vaejax.data.datasets import Dataset, batches
from vaejax.data.errors import DataFileError, MissingDataError, one_line
from vaejax.data.header import columns_left
from vaejax.data.numpy_files import names_of, npz_names, read_npy, read_npz
from vaejax.data.precision import refuse_rounded, warn_of_rounding
from vaejax.data.splits import PARTS, cut, permutation
from vaejax.data.table import read_table
from vaejax.data.values import clean, codes, with_observations

SUFFIXES = (".npy", ".npz", ".csv", ".tsv", ".txt")
_ARRAYS = ("x", "data", "images", "X")
_LABELS = ("labels", "y")


class Options(NamedTuple):
    """How one's own file is to be read: the arguments of `vaejax.data.load`."""

    labels: str | None = None
    split: tuple[float, float, float] = (0.7, 0.1, 0.2)
    seed: int = 0
    key: str | None = None
    delimiter: str | None = None
    missing: tuple[str, ...] = MISSING
    without: tuple[str, ...] = ()
    dtype: str | None = None
    empty_rows: str = "refuse"
    header: bool | None = None
    numeric_labels: bool = False


class _Raw(NamedTuple):
    """A file's content: all rows, where each stands in it, and the parts where it says them."""

    x: np.ndarray
    labels: Any
    place: Callable[[int, tuple[int, ...]], str]
    columns: tuple[str, ...] | None = None
    lengths: dict[str, int] | None = None


def load_file(path: Path, options: Options) -> Dataset:
    """The `Dataset` in one's own file; see `vaejax.data.load`.

    Raises:
        DataFileError, MissingDataError: for whatever is wrong with the file.
        ValueError: options that its kind of file does not have.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataFileError(
            f"{path} ends in {suffix!r}, wanted one of {', '.join(SUFFIXES)}; convert it to one of them"
        )
    if not path.exists():
        raise MissingDataError(f"there is no file {path}; looked from the folder {Path.cwd()}: check the path")
    _check_options(path, suffix, options)
    raw = {".npy": _npy, ".npz": _npz}.get(suffix, _table)(path, options)
    if options.without and suffix in (".npy", ".npz"):
        raw = _without(raw, options.without, path)
    whole = suffix not in (".npy", ".npz")
    x, mask = clean(raw.x, raw.place, whole_numbers=whole, dtype=options.dtype or np.float32)
    if x.dtype == np.float32 and raw.x.dtype.itemsize > 4:
        rounded = rounded_entries(raw.x, dtype=np.float32, integers=True)
        precise = options.dtype is None and rounded.any()
        remedy = "read them with dtype='float64'" if options.dtype is not None else "they stay float64"
        remedy += "; standardize the data (data.standardize computes in float64), subtract a constant, or leave them out (without=)"
        warn_of_rounding(path.name, raw.columns, rounded, remedy)
        if precise:
            x, mask = clean(raw.x, raw.place, whole_numbers=whole, dtype=np.float64)
    kept = with_observations(mask, len(x), raw.place, drop=options.empty_rows == "drop")
    mask = None if mask is None or mask[kept].all() else mask
    coded, names = (None, None) if raw.labels is None else codes(raw.labels, raw.place, numeric=options.numeric_labels)
    rows = _rows(path, raw, kept, options)
    return Dataset(
        *batches(x, rows, mask),
        labels=None if coded is None else {part: coded[r] for part, r in rows.items()},
        levels=None,
        name=path.name,
        columns=raw.columns,
        label_names=names,
        rows=rows,
    )


def _check_options(path: Path, suffix: str, options: Options) -> None:
    of_tables = ("delimiter", "missing", "header")
    foreign = {".npy": ("labels", "key", "numeric_labels", *of_tables), ".npz": of_tables}.get(suffix, ("key",))
    for name in foreign:
        if getattr(options, name) != Options._field_defaults[name]:
            hint = (
                "; put data and labels into one .npz (numpy.savez(path, x=..., labels=...))" if name == "labels" else ""
            )
            raise ValueError(f"{name}= does not apply to a {suffix} file ({path.name}); leave it out{hint}")
    if options.numeric_labels and options.labels is None and suffix != ".npz":
        raise ValueError(
            "numeric_labels=True needs labels=, the column of labels; name it, or leave numeric_labels out"
        )


def _rows(path: Path, raw: _Raw, kept: np.ndarray, options: Options) -> dict[str, np.ndarray]:
    n = len(kept)
    if raw.lengths is None:
        parts = cut(kept[permutation(n, options.seed)], options.split)
    else:
        whole = np.split(np.arange(len(raw.x)), np.cumsum(list(raw.lengths.values()))[:-1])
        known = [np.intersect1d(part, kept, assume_unique=True) for part in whole]
        if "validation" not in raw.lengths:
            order = permutation(len(known[0]), options.seed)
            known = [*cut(known[0][order], options.split[:2]), known[1]]
        parts = known
    rows = dict(zip(PARTS, parts))
    given = () if raw.lengths is None else tuple(raw.lengths)
    unseen = [part for part in given if not len(rows[part])]
    if unseen:
        raise DataFileError(f"{path}: no row of {' and '.join(unseen)} has an observed value; give some that do")
    empty = [part for part, share in zip(PARTS, options.split) if share > 0 and not len(rows[part])]
    if empty:
        raise DataFileError(
            f"{path}: split={options.split} of {n} rows leaves nothing for {' and '.join(empty)}; give more rows or other fractions, or 0 "
            "for a part that is to stay empty"
        )
    return rows


def _table(path: Path, options: Options) -> _Raw:
    table = read_table(
        path,
        labels=options.labels,
        without=options.without,
        delimiter=options.delimiter,
        missing=options.missing,
        header=options.header,
    )
    if table.unmatched:
        warnings.warn(
            f"missing={table.unmatched[0]!r} is no cell of {path}; correct its spelling, or leave it out",
            stacklevel=checks.outside(),
        )
    if table.doubt:
        warnings.warn(table.doubt, stacklevel=checks.outside())

    def place(row: int, entry: tuple[int, ...]) -> str:
        where = f"{path}, line {table.lines[row]}"
        if not entry:
            return where
        return f"{where}, column {entry[0] + 1 if table.columns is None else repr(one_line(table.columns[entry[0]]))}"

    return _Raw(table.values, table.labels, place, table.columns)


def _without(raw: _Raw, names: tuple[str, ...], path: Path) -> _Raw:
    """An array's rows without the entries of those names, which leaves columns; a table has never read them."""
    shape = raw.x.shape[1:]
    known = [f"x_{j}" for j in range(int(np.prod(shape)))]
    kept = columns_left(path, known, None, names)

    def place(row: int, entry: tuple[int, ...]) -> str:
        return raw.place(row, tuple(map(int, np.unravel_index(kept[entry[0]], shape))) if entry else ())

    columns = tuple(known[j] for j in kept)
    return raw._replace(x=raw.x.reshape(len(raw.x), -1)[:, kept], place=place, columns=columns)


def _npy(path: Path, options: Options) -> _Raw:
    return _Raw(_rows_first(read_npy(path), str(path)), None, _place_in(str(path)))


def _npz(path: Path, options: Options) -> _Raw:
    names = npz_names(path)
    if options.key is None and {"train", "test"} <= set(names):
        return _parts_npz(path, names, options)
    key = options.key or next((name for name in _ARRAYS if name in names), names[0] if len(names) == 1 else None)
    if key is None or key not in names:
        wanted = f"no array {key!r}" if key else f"none of the arrays {', '.join(_ARRAYS)} and no train and test"
        raise DataFileError(f"{path} has {wanted}; say key= one of {names_of(names)}")
    where = f"{path}, array {key!r}"
    x = _rows_first(read_npz(path, key), where)
    others = tuple(name for name in names if name != key)
    return _Raw(x, _npz_labels(path, others, options.labels, {"": len(x)}), _place_in(where))


def _parts_npz(path: Path, names: tuple[str, ...], options: Options) -> _Raw:
    validation = next((name for name in ("validation", "valid") if name in names), None)
    keys = ["train", *([validation] if validation else []), "test"]
    arrays = [_rows_first(read_npz(path, key), f"{path}, array {key!r}") for key in keys]
    if len({a.shape[1:] for a in arrays}) > 1:
        came = ", ".join(f"{key} {list(a.shape)}" for key, a in zip(keys, arrays))
        raise DataFileError(f"{path}: the examples of its parts differ in shape ({came}); give all the same")
    lengths = dict(zip(keys, map(len, arrays)))
    labels = _npz_labels(path, names, options.labels, {f"{key}_": n for key, n in lengths.items()})
    starts = np.cumsum([0, *lengths.values()])

    def place(row: int, entry: tuple[int, ...]) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return _place_in(f"{path}, array {keys[part]!r}")(row - int(starts[part]), entry)

    named = {"validation" if key == validation else key: n for key, n in lengths.items()}
    if np.result_type(*arrays).kind == "f":
        # Integers and floats, or int64 and uint64, meet in float64.
        for key, part in zip(keys, arrays):
            refuse_rounded(part, _place_in(f"{path}, array {key!r}"))
    return _Raw(np.concatenate(arrays), labels, place, lengths=named)


def _npz_labels(path: Path, names: tuple[str, ...], wanted: str | None, lengths: dict[str, int]) -> list | None:
    """The array ``wanted`` for each prefix (all of the data, or the parts), or by default labels or y where they fit."""
    for name in (wanted,) if wanted else _LABELS:
        keys = [prefix + name for prefix in lengths]
        lacking = [key for key in keys if key not in names]
        if lacking:
            if wanted:
                raise DataFileError(
                    f"{path} has no array {lacking[0]!r} for labels={wanted!r}; it has {names_of(names)}"
                )
            continue
        arrays = [read_npz(path, key, text=True) for key in keys]
        fits = all(a.shape == (n,) for a, n in zip(arrays, lengths.values()))
        if fits and (wanted or all(a.dtype.kind in "biuU" for a in arrays)):
            if len({a.dtype.kind == "U" for a in arrays}) > 1:
                raise DataFileError(
                    f"{path}: some of {', '.join(keys)} hold text and others numbers; give all the same"
                )
            # Not concatenated: int64 and uint64 would become float64.
            return [label for a in arrays for label in a.tolist()]
        if wanted:
            came = ", ".join(f"{key} has shape {list(a.shape)}" for key, a in zip(keys, arrays))
            raise DataFileError(f"{path}: {came}; labels= wants one label an example: {list(lengths.values())}")
    return None


def _rows_first(x: np.ndarray, where: str) -> np.ndarray:
    if x.ndim < 2:
        raise DataFileError(
            f"{where} has shape {list(x.shape)}, wanted one row an example, [n, *event]; reshape it, e.g. x[:, None] for single numbers"
        )
    return x


def _place_in(where: str) -> Callable[[int, tuple[int, ...]], str]:
    return lambda row, entry: f"{where}, row {row}" + (f", entry {entry}" if entry else "")
