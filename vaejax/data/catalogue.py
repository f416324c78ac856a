"""What named datasets there are, which of them are here, and what a dataset is like."""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

from vaejax.data.describe import Summary, describe
from vaejax.data.loading import load
from vaejax.data.registry import SOURCES, folder, needs_files, present


class DatasetRow(NamedTuple):
    """One named dataset.

    Attributes:
        name: for `vaejax.data.load`.
        shape: what it is, in words.
        found: whether its files are here (by name and size; `vaejax.data.check` reads them).
        path: its folder, or None for one that needs no files.
        fetchable: whether `vaejax.data.fetch` can download it.
        source: whose it is and where from.
        licence: as far as known.
    """

    name: str
    shape: str
    found: bool
    path: Path | None
    fetchable: bool
    source: str
    licence: str


def catalogue(directory: Any = None) -> tuple[DatasetRow, ...]:
    """The named datasets, and which are found in ``directory`` (None: `vaejax.data.default_directory`).

    Examples:
        >>> [row.name for row in catalogue("/nowhere") if row.found], [row.name for row in catalogue() if row.fetchable]
        (['digits', 'sprites'], ['mnist', 'fashion_mnist', 'mnist_static'])
    """
    return tuple(_row(name, directory) for name in SOURCES)


def _row(name: str, directory: Any) -> DatasetRow:
    source = SOURCES[name]
    if not needs_files(name):
        found, path = name != "digits" or importlib.util.find_spec("sklearn") is not None, None
    else:
        forms = (source.files, source.instead) if source.instead else (source.files,)
        found, path = any(present(name, files, directory) for files in forms), folder(name, directory)
    return DatasetRow(name, source.shape, found, path, bool(source.mirrors), source.origin, source.licence)


def check(name: str | Path, directory: Any = None, **options: Any) -> Summary:
    """Loads a dataset, by which all its files are checked, and describes it.

    Args:
        name: as for `vaejax.data.load`.
        directory: as there.
        **options: as there, for files of one's own.

    Raises:
        ValueError, DataFileError, MissingDataError: as `vaejax.data.load`.

    Examples:
        >>> check("digits").classes
        10
    """
    return describe(load(name, directory, **options))
