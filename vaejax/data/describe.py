"""What a dataset is like, in a few numbers and a few lines."""

from typing import Any, NamedTuple

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
        missing: the fraction of entries that are missing, each with the weight of its example.
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

    Values in examples of weight 0 are not read. The counts of examples include these.

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
        missing=_missing(parts),
        constant=int(constant_entries(dataset.train).sum()),
        classes=None if classes is None else len(classes),
    )


def constant_entries(batch: Batch) -> np.ndarray:
    """``[*event]``: True for the entries whose observed values are all the same, or that are never observed.

    Examples:
        >>> constant_entries(Batch(np.array([[1, 2], [1, 3]])))
        array([ True, False])
    """
    x, mask = np.asarray(batch.x), counted_entries(batch)
    if mask is None:
        return x.min(axis=0) == x.max(axis=0)
    lowest, highest = np.where(mask, x, np.inf).min(axis=0), np.where(mask, x, -np.inf).max(axis=0)
    return lowest >= highest


def counted_entries(batch: Batch) -> np.ndarray | None:
    """Returns True for each observed entry ``[n, *event]`` of an example of positive weight.

    The result is None where this holds for every entry by default: without a mask and weights.

    Examples:
        >>> counted_entries(Batch(np.ones((2, 2)), weight=np.array([3, 0]))).tolist()
        [[True, True], [False, False]]
    """
    mask = None if batch.mask is None else np.asarray(batch.mask)
    if batch.weight is None:
        return mask
    present = _per_entry(np.asarray(batch.weight) > 0, batch)
    return np.broadcast_to(present, np.shape(batch.x)) if mask is None else mask & present


class EntryMoments(NamedTuple):
    """Moments of each entry over the examples, weighted; 0 for entries that are never observed.

    Attributes:
        mean: ``[*event]`` float64.
        deviation: ``[*event]`` float64, the square root of the variance with divisor Σ weight.
    """

    mean: np.ndarray
    deviation: np.ndarray


def entry_moments(batch: Batch) -> EntryMoments:
    """Computes the weighted mean and standard deviation of each entry's observed values.

    Examples:
        >>> moments = entry_moments(Batch(np.array([1.0, 3.0, 99.0]), weight=np.array([1, 1, 0])))
        >>> float(moments.mean), float(moments.deviation)
        (2.0, 1.0)
    """
    x, mask = np.asarray(batch.x, np.float64), counted_entries(batch)
    observed = np.ones(x.shape, bool) if mask is None else mask
    weight: Any = 1.0
    if batch.weight is not None:
        weight = _per_entry(np.asarray(batch.weight, np.float64), batch)
    total = (weight * observed).sum(axis=0)
    total = np.where(total > 0, total, 1.0)

    def average(values: np.ndarray) -> np.ndarray:
        return (weight * np.where(observed, values, 0)).sum(axis=0) / total

    mean = average(x)
    # A second pass: far from 0 the first sum is rounded.
    mean = mean + average(x - mean)
    return EntryMoments(mean, np.sqrt(average(np.square(np.where(observed, x - mean, 0)))))


def _per_entry(values: np.ndarray, batch: Batch) -> np.ndarray:
    """Numbers of the examples ``[n]``, with axes of length 1 for those of an entry."""
    return values.reshape(len(values), *(1,) * (np.ndim(batch.x) - 1))


def _missing(parts: tuple[Batch, ...]) -> float:
    """The weighted fraction of the entries that are missing."""
    missing = total = 0.0
    for part in parts:
        weight = np.ones(len(part.x))
        if part.weight is not None:
            weight = np.asarray(part.weight, np.float64)
        entries = int(np.prod(np.shape(part.x)[1:]))
        total += entries * float(weight.sum())
        if part.mask is not None:
            absent = ~np.asarray(part.mask).reshape(len(weight), entries)
            missing += float(weight @ absent.sum(axis=1))
    return missing / total if total else 0.0


def _extremes(batch: Batch) -> tuple[float, ...]:
    mask = counted_entries(batch)
    x = np.asarray(batch.x) if mask is None else np.asarray(batch.x)[mask]
    return (x.min(), x.max()) if x.size else ()


def _whole_numbers(batch: Batch) -> bool:
    x, mask = np.asarray(batch.x), counted_entries(batch)
    # A missing entry holds 0 or anything at all: it has no say.
    ignored = False if mask is None else ~mask
    return x.dtype.kind in "biu" or bool(np.all((x == np.floor(x)) | ignored))
