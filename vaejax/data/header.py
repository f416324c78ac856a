"""The first row of a table, names of columns or an example, and the columns that names select."""

import difflib
from pathlib import Path

from vaejax.data.cells import Missing, is_missing, looks_missing, number
from vaejax.data.errors import DataFileError, one_line
from vaejax.data.numpy_files import names_of


def guess_header(path: Path, line: int, cells: list[str], missing: Missing) -> tuple[bool, str]:
    """Returns whether the first row holds names, and a remark where that is in doubt (else empty).

    It does if one of its cells is neither a number nor a missing value. That is in doubt if other cells are, or if the text is
    a usual spelling of a missing value. A row of numbers is an example, in doubt if it counts the columns or the years.
    """
    plain = [cell.strip() for cell in cells]
    data_like = [is_missing(cell, missing) or number(cell) is not None for cell in plain]
    shown = names_of(tuple(plain))
    if all(data_like):
        if not _counts(plain):
            return False, ""
        return False, (
            f"{path}: line {line} was read as an example, and it may hold names of columns: {shown}; header=True reads it as names, "
            "header=False ends this warning"
        )
    if any(data_like) or any(map(looks_missing, plain)):
        return True, (
            f"{path}: line {line} was taken for the header, and some of its cells are numbers or missing values: {shown}; "
            "header=False reads it as an example, header=True ends this warning"
        )
    return True, ""


def _counts(cells: list[str]) -> bool:
    """Whether three cells or more are 0, 1, 2, … (the names that data frames give) or consecutive years."""
    if len(cells) < 3 or not all(cell.isascii() and cell.isdigit() and len(cell) < 5 for cell in cells):
        return False
    first = int(cells[0])
    return (first == 0 or 1900 <= first <= 2100) and cells == [str(first + j) for j in range(len(cells))]


def check_names(path: Path, names: list[str], doubt: str) -> list[str]:
    """Returns the names of a header if each column has one that no other has."""
    remark = "; header=False reads the first row as an example" if doubt else ""
    if "" in names:
        raise DataFileError(
            f"{path}: column {names.index('') + 1} has no name in the header; name it, or remove it if it only counts the "
            f"rows{remark}"
        )
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataFileError(f"{path} has two columns named {one_line(twice)!r}; rename or remove one{remark}")
    return names


def label_column(path: Path, names: list[str], labels: str | None, doubt: str, *, nameless: bool) -> int | None:
    """Where the column of labels stands; ``nameless``: the names are x_0, x_1, … where there is no header."""
    if labels is None:
        return None
    if nameless and labels not in names:
        raise DataFileError(
            f"{path} has no header, so that labels={labels!r} names no column; put names in the first row, or name columns "
            "x_0, x_1, …"
        )
    _refuse_unknown(path, names, labels, doubt)
    return names.index(labels)


def columns_left(
    path: Path, names: list[str], label_at: int | None, without: tuple[str, ...], doubt: str = ""
) -> list[int]:
    """Where the columns of numbers stand that are not to be left out."""
    for name in without:
        _refuse_unknown(path, names, name, doubt)
    remaining = [i for i, name in enumerate(names) if i != label_at and name not in without]
    if not remaining:
        but = [*([] if label_at is None else [names[label_at]]), *without]
        raise DataFileError(
            f"{path} has no column but {', '.join(map(repr, but))}; columns of data are wanted beside labels and what is left out"
        )
    return remaining


def _refuse_unknown(path: Path, names: list[str], name: str, doubt: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataFileError(
            f"{path} has no column {name!r}{hint} (it has {names_of(tuple(names))}){header_remark(doubt)}"
        )


def header_remark(doubt: str) -> str:
    """A remark where a header looks like a row of data."""
    return " (line 1, which has text, was taken for the header); header=False reads it as an example" if doubt else ""
