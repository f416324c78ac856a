"""What a dataset is like, in a few numbers and a few lines."""

from typing import NamedTuple

import numpy as np

from vaejax.data.datasets import Dataset
from vaejax.types import Batch


class Summary(NamedTuple):
    """What `describe` found; printing it gives a few lines.

    Attributes:
        name: the dataset's.
        num_train: examples to learn from.
        num_validation: to watch.
        num_test: to report on.
        event_shape: of one example.
        dtype: of x.
        kind: ``"binary"`` (only 0 and 1), ``"counts"`` (whole numbers from 0, grey levels) or ``"real"``.
        minimum: the smallest observed value.
        maximum: the largest.
        missing: the fraction of entries that are missing.
        constant: the entries of an example that never vary in train; a density fitted to them is infinite.
        classes: how many, or None without labels.
    """

    name: str
    num_train: int
    num_validation: int
    num_test: int
    event_shape: tuple[int, ...]
    dtype: str
    kind: str
    minimum: float
    maximum: float
    missing: float
    constant: int
    classes: int | None

    def __str__(self) -> str:
        """A few lines for the terminal."""
        shape = "×".join(map(str, self.event_shape)) or "one number"
        total = int(np.prod(self.event_shape))
        missing = "nothing is missing" if not self.missing else f"{100 * self.missing:.3g} % of the entries are missing"
        constant = f"{self.constant} of {total} entries never var{'ies' if self.constant == 1 else 'y'} in train"
        lines = [
            f"{self.name}: {self.num_train} train, {self.num_validation} validation, {self.num_test} test",
            f"  each {shape}, {self.dtype}, {self.kind} from {self.minimum:g} to {self.maximum:g}"
            + ("" if self.classes is None else f", {self.classes} classes"),
            f"  {missing}; {constant if self.constant else 'every entry varies in train'}",
        ]
        return "\n".join(lines)


def describe(dataset: Dataset) -> Summary:
    """Counts, shape, kind and range of a dataset's observed values.

    Examples:
        >>> from vaejax import data
        >>> print(describe(data.load("digits")))
        digits: 1260 train, 180 validation, 357 test
          each 8×8, uint8, counts from 0 to 16, 10 classes
          nothing is missing; 3 of 64 entries never vary in train
    """
    parts = (dataset.train, dataset.validation, dataset.test)
    extremes = [extent for part in parts for extent in _extremes(part)]
    minimum, maximum = (min(extremes), max(extremes)) if extremes else (np.nan, np.nan)
    whole = all(_whole_numbers(part) for part in parts)
    if dataset.levels is not None or (whole and minimum >= 0 and maximum > 1):
        kind = "counts"
    else:
        kind = "binary" if whole and minimum >= 0 else "real"
    x = dataset.train.x
    missing = sum(0 if part.mask is None else int(np.sum(~np.asarray(part.mask))) for part in parts)
    classes = dataset.label_names
    if classes is None and dataset.labels is not None:
        classes = tuple(np.unique(np.concatenate(list(dataset.labels.values()))))
    return Summary(
        name=dataset.name,
        num_train=len(x),
        num_validation=len(dataset.validation.x),
        num_test=len(dataset.test.x),
        event_shape=tuple(x.shape[1:]),
        dtype=str(x.dtype),
        kind=kind,
        minimum=float(minimum),
        maximum=float(maximum),
        missing=missing / sum(part.x.size for part in parts),
        constant=int(constant_entries(dataset.train).sum()),
        classes=None if classes is None else len(classes),
    )


def constant_entries(batch: Batch) -> np.ndarray:
    """``[*event]``: True for the entries whose observed values are all the same, or that are never observed.

    Examples:
        >>> constant_entries(Batch(np.array([[1, 2], [1, 3]])))
        array([ True, False])
    """
    x = np.asarray(batch.x)
    if batch.mask is None:
        return x.min(axis=0) == x.max(axis=0)
    mask = np.asarray(batch.mask)
    lowest, highest = np.where(mask, x, np.inf).min(axis=0), np.where(mask, x, -np.inf).max(axis=0)
    return lowest >= highest


def _extremes(batch: Batch) -> tuple[float, ...]:
    x = np.asarray(batch.x) if batch.mask is None else np.asarray(batch.x)[np.asarray(batch.mask)]
    return (x.min(), x.max()) if x.size else ()


def _whole_numbers(batch: Batch) -> bool:
    x = np.asarray(batch.x)
    # A missing entry holds 0 or anything at all: it has no say.
    return x.dtype.kind in "biu" or bool(np.all((x == np.floor(x)) | (False if batch.mask is None else ~batch.mask)))
