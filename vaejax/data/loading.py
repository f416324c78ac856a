"""The door of the data room: a dataset by name or from one's own file."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vaejax import checks
from vaejax.data import datasets
from vaejax.data.cells import MISSING
from vaejax.data.datasets import Dataset
from vaejax.data.own import SUFFIXES, Options, load_file
from vaejax.data.splits import fractions, permutation
from vaejax.data.sprites import load_sprites

_LOADERS: dict[str, Callable[[Any], Dataset]] = {
    "digits": datasets.digits,
    "mnist": functools.partial(datasets.idx_images, "mnist"),
    "fashion_mnist": functools.partial(datasets.idx_images, "fashion_mnist"),
    "mnist_static": datasets.mnist_static,
    "frey": datasets.frey,
    "sprites": load_sprites,
}


def load(
    name: str | Path,
    directory: Any = None,
    *,
    labels: str | None = None,
    split: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    key: str | None = None,
    delimiter: str | None = None,
    missing: str | tuple[str, ...] = MISSING,
    without: str | tuple[str, ...] = (),
    dtype: str | None = None,
    empty_rows: str = "refuse",
    header: bool | None = None,
    numeric_labels: bool = False,
) -> Dataset:
    """Loads a dataset by name, or from a file of one's own.

    - ``"digits"``: scikit-learn's 1797 handwritten digits, 8×8, integers 0–16 (uint8), split by position: of every
      hundred consecutive images 70 train, the next 10 validate and 20 test. Three of the pixels never vary: model the counts as
      ``likelihoods.binomial(16)`` or binarise them; a density fitted to them would mean nothing.
    - ``"mnist"``, ``"fashion_mnist"``: 28×28, integers 0–255 (uint8): the first 55000 train, the last 5000 of the 60000
      validate, the 10000 test.
    - ``"mnist_static"``: Larochelle's binarised MNIST, 28×28 zeros and ones (uint8), 50000/10000/10000 as published.
    - ``"frey"``: 1965 video frames, 28×20, integers 0–255 (uint8), split by position as the digits are: neighbouring frames
      are near copies, so that a random split would test on what was trained on; even so each block borders on others.
    - ``"sprites"``: 4608 drawings of a square, ellipse or heart, 32×32, integers 0–255 (uint8): all combinations of shape, scale,
      orientation, x and y (`vaejax.data.sprites`), split at random 3226/460/922. The dataset's ``factors`` are the five of
      each image, its labels the shapes.
    - a path to a ``.npy``, ``.npz``, ``.csv``, ``.tsv`` or ``.txt`` file: rows shuffled by ``seed``, then cut by ``split``, the
      same on every machine. NaN (in tables: ``missing``) becomes ``mask`` False and x 0. Integers and bools become
      uint8 (0 to 255) or int32, floats ``dtype``; a table of whole numbers is one of integers, where int32 holds them.
      Of an ``.npz``, ``train``, ``test`` (and ``validation`` or ``valid``, else cut from train) are parts; else ``x``,
      ``data``, ``images``, ``X`` or the only array is the data.

    Args:
        name: the dataset, or the path.
        directory: where the folders of named datasets are; None: `default_directory`.
        labels: own files: the column, or the array of the .npz (with parts: the end of ``train_…``), that holds the classes;
            an .npz has ``labels`` or ``y`` taken if they fit. Coded as 0, 1, … in sorted order.
        split: own files: the fractions for train, validation and test; of the last two 0 leaves the part empty.
        seed: own files: of the shuffle.
        key: the array of an .npz that is the data.
        delimiter: of a table; None: found out.
        missing: the cells of a table that stand for a missing value, compared as text without surrounding blanks; a number in any
            spelling (-9 is -9.00).
        without: own files: columns to leave out by name, of a table also text (x_0, x_1, … without a header, and for the entries of an
            array, which become columns).
        dtype: own files: of floats, "float32" or "float64". None: float32, unless that loses more than 1 % of the distinct values or
            of the spread of a column, or rounds whole numbers; then float64, with a warning that names the column.
        empty_rows: own files: what becomes of rows without any observed value: "refuse", or "drop" with a warning that counts them.
        header: own tables: whether the first row holds names. None: if one of its cells is neither a number nor a missing value, with
            a warning where that is in doubt.
        numeric_labels: own files: whether labels of text are the numbers that they spell, so that 1, 01 and 1.0 are one class. Else
            labels are classes exactly as they are written.

    Returns:
        A `Dataset` of arrays in host memory.

    Raises:
        ValueError: for an unknown name (the nearest is suggested), options that do not apply.
        DataFileError: a damaged file, or one that is not such as it should be; a ValueError.
        MissingDataError: a file is not there; a FileNotFoundError.

    Examples:
        >>> digits = load("digits")
        >>> digits.train.x.shape, digits.validation.x.shape, digits.test.x.shape, digits.train.x.dtype.name
        ((1260, 8, 8), (180, 8, 8), (357, 8, 8), 'uint8')
    """
    if dtype is not None:
        checks.one_of(dtype, "dtype", ("float32", "float64"))
    for value, name_of_flag, wanted in (
        (header, "header", (None, False, True)),
        (numeric_labels, "numeric_labels", (False, True)),
    ):
        if not any(value is one for one in wanted):
            raise TypeError(f"{name_of_flag}= must be one of {', '.join(map(str, wanted))}, got {value!r}")
    checks.one_of(empty_rows, "empty_rows", ("refuse", "drop"))
    options = _options(labels, split, seed, key, delimiter, missing, without)
    options = options._replace(dtype=dtype, empty_rows=empty_rows, header=header, numeric_labels=numeric_labels)
    path = own_path(name)
    if path is not None:
        if directory is not None:
            raise ValueError(f"directory= is for named datasets; leave it out, {str(path)!r} says where the file is")
        return load_file(path, options)
    given = [field for field, value in Options._field_defaults.items() if getattr(options, field) != value]
    if given:
        raise ValueError(f"{given[0]}= is for files of your own; leave it out, {name!r} is split and labelled as it is")
    return _LOADERS[str(name)](directory)


def _options(labels: Any, split: Any, seed: Any, key: Any, delimiter: Any, missing: Any, without: Any) -> Options:
    for value, option in ((labels, "labels"), (key, "key"), (delimiter, "delimiter")):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{option}= must be text, got {value!r}; write one name as it stands in the file")
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"delimiter= must be one character, not a quote or line end, got {delimiter!r}")
    tokens = _texts(missing, "missing", "write '-99' for -99")
    left_out = _texts(without, "without", "write 'x_0' for 0")
    permutation(0, seed)
    return Options(labels, fractions(split), seed, key, delimiter, tokens, left_out)


def _texts(value: Any, option: str, example: str) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) or not np.iterable(value) else tuple(value)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{option}= must be texts as they stand in the file, got {value!r}; {example}")
    return texts


def own_path(name: Any) -> Path | None:
    """The path if ``name`` is one, None if it is the name of a dataset.

    Raises:
        ValueError: neither, with the nearest name.
        TypeError: not text.

    Examples:
        >>> own_path("digits"), own_path("scores.csv").name
        (None, 'scores.csv')
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"a dataset is named by text or a path, got {type(name).__name__}; pass arrays as vaejax.Batch")
    if isinstance(name, str):
        if name in _LOADERS:
            return None
        separated = any(mark in name for mark in {"/", os.sep})
        if not (separated or Path(name).suffix.lower() in SUFFIXES or Path(name).is_file()):
            try:
                checks.one_of(name, "dataset", _LOADERS)
            except ValueError as error:
                raise ValueError(f"{error}; or the path of a {', '.join(SUFFIXES)} file of your own") from None
    return Path(name).expanduser()
