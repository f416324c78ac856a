"""Named datasets with deterministic splits."""

from typing import Any, NamedTuple

import numpy as np

from vaejax import checks
from vaejax.types import Batch


class Dataset(NamedTuple):
    """Data split three ways.

    Attributes:
        train: the examples to learn from.
        validation: to watch while learning.
        test: for the number that is reported.
        labels: ``{"train", "validation", "test"}``, integers, or None.
        levels: the grey level that stands for white in integer images, or None.
        name: its name.
    """

    train: Batch
    validation: Batch
    test: Batch
    labels: dict[str, np.ndarray] | None
    levels: int | None
    name: str


def load(name: str, directory: Any = None) -> Dataset:
    """Loads a dataset by name.

    ``"digits"``: scikit-learn's 1797 handwritten digits, 8×8, integers 0–16 (uint8), split by position: of every
    hundred consecutive images 70 train, the next 10 validate and 20 test. Three of the pixels never vary: model the counts as
    ``likelihoods.binomial(16)`` or binarise them; a density fitted to them would mean nothing.

    Args:
        name: the dataset.
        directory: where files are, for datasets that are not part of an installed package.

    Returns:
        A `Dataset` of arrays in host memory.

    Raises:
        ValueError: for an unknown name; the nearest is suggested.

    Examples:
        >>> digits = load("digits")
        >>> digits.train.x.shape, digits.validation.x.shape, digits.test.x.shape, digits.train.x.dtype.name
        ((1260, 8, 8), (180, 8, 8), (357, 8, 8), 'uint8')
    """
    return _LOADERS[checks.one_of(name, "dataset", _LOADERS)](directory)


def _digits(directory: Any) -> Dataset:
    from sklearn.datasets import load_digits

    if directory is not None:
        raise ValueError("the digits come with scikit-learn; leave directory out")
    source = load_digits()
    # In tens: the digits come in turn, so that single images dealt out would leave parts short of some of them.
    turn = np.arange(len(source.images)) // 10 % 10
    chosen = {"train": turn < 7, "validation": turn == 7, "test": turn > 7}
    images = {split: Batch(source.images[rows].astype(np.uint8)) for split, rows in chosen.items()}
    return Dataset(
        **images, labels={s: source.target[r].astype(np.int32) for s, r in chosen.items()}, levels=16, name="digits"
    )


_LOADERS = {"digits": _digits}
