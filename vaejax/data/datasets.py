"""Named datasets with deterministic splits."""

from typing import Any, NamedTuple

import numpy as np

from vaejax.data.errors import DataFileError, reading
from vaejax.data.idx import read_idx
from vaejax.data.numpy_files import read_npz
from vaejax.data.registry import SOURCES, File, folder, present, verified
from vaejax.data.splits import PARTS, blocks
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
        columns: the names of a table's columns, or None.
        label_names: the classes, in the order of their integer codes, or None.
        factors: ``{"train", "validation", "test"}``, ``[n, F]`` integers 0, 1, …: what each example was made from, or None.
        factor_names: the names of the F factors, or None.
        rows: ``{"train", "validation", "test"}``, where each example stands in its source, from 0; None where the parts follow one another.
    """

    train: Batch
    validation: Batch
    test: Batch
    labels: dict[str, np.ndarray] | None
    levels: int | None
    name: str
    columns: tuple[str, ...] | None = None
    label_names: tuple[str, ...] | None = None
    factors: dict[str, np.ndarray] | None = None
    factor_names: tuple[str, ...] | None = None
    rows: dict[str, np.ndarray] | None = None


def batches(x: Any, rows: dict[str, np.ndarray], mask: Any = None) -> tuple[Batch, Batch, Batch]:
    """The three parts of ``x`` (and of its mask) by the rows that belong to each."""
    train, validation, test = (Batch(x[rows[p]], mask=None if mask is None else mask[rows[p]]) for p in PARTS)
    return train, validation, test


def digits(directory: Any = None) -> Dataset:
    """scikit-learn's handwritten digits."""
    from sklearn.datasets import load_digits

    if directory is not None:
        raise ValueError("the digits come with scikit-learn; leave directory out")
    source = load_digits()
    # In tens: the digits come in turn, so that single images dealt out would leave parts short of some of them.
    chosen = blocks(len(source.images))
    labels = {part: source.target[rows].astype(np.int32) for part, rows in chosen.items()}
    parts = batches(source.images.astype(np.uint8), chosen)
    return Dataset(*parts, labels=labels, levels=16, name="digits", rows=chosen)


def idx_images(name: str, directory: Any = None) -> Dataset:
    """MNIST, or Fashion-MNIST in the same form: the last 5000 of the 60000 training images validate."""
    images, labels, test_images, test_labels = (
        _shaped(read_idx(verified(name, file, directory)), shape, np.uint8, folder(name, directory) / file.name)
        for file, shape in zip(SOURCES[name].files, ((60000, 28, 28), (60000,), (10000, 28, 28), (10000,)))
    )
    coded = [part.astype(np.int32) for part in (labels[:55000], labels[55000:], test_labels)]
    train, validation, test = map(Batch, (images[:55000], images[55000:], test_images))
    return Dataset(train, validation, test, dict(zip(PARTS, coded)), levels=255, name=name)


def mnist_static(directory: Any = None) -> Dataset:
    """Larochelle's binarised MNIST, from the bit-packed archive or from the three published text files."""
    source = SOURCES["mnist_static"]
    rows = (50000, 10000, 10000)
    if present("mnist_static", source.instead, directory):
        path = verified("mnist_static", source.instead[0], directory)
        packed = [read_npz(path, part) for part in ("train", "valid", "test")]
        flat: list[Any] = [np.unpackbits(_shaped(x, (n, 98), np.uint8, path), axis=1) for x, n in zip(packed, rows)]
    else:
        flat = [_amat(file, n, directory) for file, n in zip(source.files, rows)]
    train, validation, test = (Batch(x.reshape(-1, 28, 28)) for x in flat)
    return Dataset(train, validation, test, labels=None, levels=None, name="mnist_static")


def _amat(file: File, rows: int, directory: Any) -> Any:
    path = verified("mnist_static", file, directory)
    with reading(path, "a text file of 0 and 1"):
        text = np.fromfile(path, np.uint8)
    # "0 1 … 1\n": every other byte is a digit.
    x = _shaped(text, (rows * 784 * 2,), np.uint8, path)[::2] - ord("0")
    if x.max() > 1:
        raise DataFileError(f"{path} holds something else than 0 and 1 between blanks; delete it and fetch it again")
    return x


def frey(directory: Any = None) -> Dataset:
    """Frey's face, in blocks of consecutive frames."""
    path = verified("frey", SOURCES["frey"].files[0], directory)
    images = _shaped(read_npz(path, "images"), (1965, 28, 20), np.uint8, path)
    chosen = blocks(1965)
    return Dataset(*batches(images, chosen), labels=None, levels=255, name="frey", rows=chosen)


def _shaped(x: np.ndarray, shape: tuple[int, ...], dtype: Any, path: Any) -> Any:
    if x.shape != shape or x.dtype != dtype:
        raise DataFileError(
            f"{path} holds {x.dtype} of shape {list(x.shape)}, wanted {np.dtype(dtype)} {list(shape)}; get the file again"
        )
    return x
