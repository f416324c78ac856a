"""What ``vaejax fit`` fits: the rows of a dataset in float64, checked at the door."""

import shlex
import warnings
from typing import Any, NamedTuple

import numpy as np

from vaejax import checks, data
from vaejax.data.describe import constant_entries
from vaejax.data.registry import needs_files
from vaejax.report.fit_options import Table as Options
from vaejax.report.options import file_options
from vaejax.types import Batch

PARTS = ("train", "validation", "test")
_NAMED = 20
# Fewer rows than that may be in their own order by chance.
_COUNTED = 10


class Table(NamedTuple):
    """Rows to fit, and what they were before.

    Attributes:
        name: of the dataset.
        summary: of what is in it, in words.
        columns: names of the d columns that are fitted.
        parts: ``{"train", "validation", "test"}``: ``[n, d]`` float64, (x − mean) / scale.
        mean: ``[d]``, 0 unless standardised.
        scale: ``[d]``, 1 unless standardised.
        labels: ``{"train", "validation", "test"}``, integers, or None.
        label_names: the classes, in the order of their codes, or None.
        places: ``{"train", "validation", "test"}``: where each row stands in its source, from 0.
    """

    name: str
    summary: str
    columns: tuple[str, ...]
    parts: dict[str, Batch]
    mean: np.ndarray
    scale: np.ndarray
    labels: dict[str, np.ndarray] | None
    label_names: tuple[str, ...] | None
    places: dict[str, np.ndarray]

    @property
    def missing(self) -> bool:
        """Whether any cell is."""
        return any(part.mask is not None for part in self.parts.values())

    def stacked(self) -> Batch:
        """All rows, part after part."""
        parts = [self.parts[part] for part in PARTS]
        x: Any = np.concatenate([part.x for part in parts])
        mask: Any = np.concatenate([np.ones(part.x.shape, bool) if part.mask is None else part.mask for part in parts])
        return Batch(x, mask=mask if self.missing else None)

    def in_own_units(self, part: str) -> np.ndarray:
        """The rows as they came."""
        return np.asarray(self.parts[part].x) * self.scale + self.mean

    def log_scale(self, part: str) -> Any:
        """Σ log scale over the observed columns of each row: what a log-density of the rows as they came is smaller by."""
        seen = self.parts[part].mask
        return np.log(self.scale).sum() if seen is None else np.asarray(seen) @ np.log(self.scale)


def open_table(name: str, options: Options, *, varied: bool) -> Table:
    """Reads and checks the rows.

    Args:
        name: a dataset's, or a file.
        options: how to read it, and what to leave out.
        varied: whether every column must vary; standardised ones must anyway.

    Raises:
        FileNotFoundError, ValueError: no such data; columns that are not there, that never vary or have no value.

    Warns:
        UserWarning: rows without a value, which are left out; columns that count the rows.
    """
    dataset, left_out = _load(name, options)
    dataset = _without(_flat(dataset), left_out)
    columns = dataset.columns or ()
    train = dataset.train
    _refuse_unseen(dataset)
    if varied or options.standardize:
        _refuse_constant(dataset)
    if data.own_path(name) is not None:
        _warn_of_counters(dataset)
    mean, scale = _scaling(train) if options.standardize else (np.zeros(len(columns)), np.ones(len(columns)))
    lengths = np.cumsum([0, *(len(part.x) for part in dataset[:3])])
    follow = {part: np.arange(lengths[i], lengths[i + 1]) for i, part in enumerate(PARTS)}
    return Table(
        name=dataset.name,
        summary=str(data.describe(dataset)),
        columns=columns,
        parts={part: _scaled(batch, mean, scale) for part, batch in zip(PARTS, dataset[:3])},
        mean=mean,
        scale=scale,
        labels=dataset.labels,
        label_names=dataset.label_names,
        places=dataset.rows or follow,
    )


def _load(name: str, options: Options) -> tuple[data.Dataset, tuple[str, ...]]:
    """The dataset, and the columns that are still to be left out: of own files they are never read."""
    folder = options.data_dir
    if folder is not None and not folder.is_dir():
        raise NotADirectoryError(
            f"--data-dir {folder} is no directory; name the one that holds {name}/, or leave it out"
        )
    chosen = file_options(options)
    if data.own_path(name) is not None:
        own: dict[str, Any] = {"split": options.split, "seed": options.split_seed}
        return data.load(name, folder, **chosen, **own, dtype="float64", empty_rows="drop"), ()
    for field in ("split", "split_seed"):
        if getattr(options, field) != getattr(Options(), field):
            flag = field.replace("_", "-")
            raise ValueError(f"--{flag} is for files of your own, and {name} is split as it is; leave it out")
    chosen.pop("without", None)
    return data.load(name, folder if needs_files(name) else None, **chosen), options.without


def _flat(dataset: data.Dataset) -> data.Dataset:
    """Rows ``[n, d]`` with named columns, masks only where something is missing."""
    size = int(np.prod(dataset.train.x.shape[1:]))

    def flat(batch: Batch) -> Batch:
        x: Any = np.asarray(batch.x).reshape(len(batch.x), size)
        mask: Any = None if batch.mask is None else np.asarray(batch.mask).reshape(x.shape)
        return Batch(x, mask=None if mask is None or mask.all() else mask)

    train, validation, test = map(flat, dataset[:3])
    columns = dataset.columns or tuple(f"x_{j}" for j in range(size))
    return dataset._replace(train=train, validation=validation, test=test, columns=columns, levels=None)


def _without(dataset: data.Dataset, names: tuple[str, ...]) -> data.Dataset:
    columns = dataset.columns or ()
    for name in names:
        checks.one_of(name, "--without", columns)
    kept = [j for j, column in enumerate(columns) if column not in names]
    if not kept:
        raise ValueError(f"--without leaves no column of {dataset.name} to fit; leave some in")

    def chosen(batch: Batch) -> Batch:
        mask = None if batch.mask is None else batch.mask[:, kept]
        return Batch(batch.x[:, kept], mask=None if mask is None or mask.all() else mask)

    train, validation, test = map(chosen, dataset[:3])
    left = tuple(columns[j] for j in kept)
    return dataset._replace(train=train, validation=validation, test=test, columns=left)


def _refuse_constant(dataset: data.Dataset) -> None:
    if len(dataset.train.x) == 1:
        raise ValueError(f"{dataset.name}: 1 training row says nothing of how the columns vary; give more")
    names = [name for name, constant in zip(dataset.columns or (), constant_entries(dataset.train)) if constant]
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise ValueError(
            f"{dataset.name}: columns that never vary in the training rows have no density; leave them out: --without "
            f"{' '.join(map(shlex.quote, names[:_NAMED]))}{more}"
        )


def _warn_of_counters(dataset: data.Dataset) -> None:
    """Says which columns only number the rows."""
    columns = dataset.columns or ()
    x = np.concatenate([np.asarray(part.x) for part in dataset[:3]])
    seen = np.concatenate([np.ones(part.x.shape, bool) if part.mask is None else part.mask for part in dataset[:3]])
    for j in np.flatnonzero(seen.all(axis=0) & (len(x) >= _COUNTED)):
        ordered = np.sort(x[:, j])
        if (np.diff(ordered) == 1).all() and ordered[0] == np.floor(ordered[0]):
            warnings.warn(
                f"{dataset.name}: column {columns[j]!r} numbers the rows from {ordered[0]:g} to {ordered[-1]:g}; if it says nothing else, "
                f"leave it out: --without {shlex.quote(columns[j])}",
                stacklevel=checks.outside(),
            )


def _refuse_unseen(dataset: data.Dataset) -> None:
    unseen = np.zeros(0, int) if dataset.train.mask is None else np.flatnonzero(~dataset.train.mask.any(axis=0))
    if len(unseen):
        name = (dataset.columns or ())[unseen[0]]
        raise ValueError(
            f"{dataset.name}: column {name!r} has no value in the training rows; leave it out: --without {shlex.quote(name)}"
        )


def _scaling(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(batch.x, np.float64)
    seen = np.where(np.ones(x.shape, bool) if batch.mask is None else np.asarray(batch.mask), x, np.nan)
    return np.nanmean(seen, axis=0), np.nanstd(seen, axis=0)


def _scaled(batch: Batch, mean: np.ndarray, scale: np.ndarray) -> Batch:
    x: Any = (np.asarray(batch.x, np.float64) - mean) / scale
    if batch.mask is not None:
        x[~np.asarray(batch.mask)] = 0.0
    return Batch(x, mask=batch.mask)
