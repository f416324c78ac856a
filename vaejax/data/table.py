"""Tables of numbers in text files (CSV and the like): one example a row, missing values marked."""

import array
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaejax.data.cells import (
    MISSING,
    Missing,
    advice,
    is_missing,
    is_rounded,
    looks_missing,
    matches,
    missing_tokens,
    number,
)
from vaejax.data.dialect import decode, read_rows
from vaejax.data.errors import LIMIT, DataFileError, one_line, reading
from vaejax.data.header import check_names, columns_left, guess_header, header_remark, label_column


class Table(NamedTuple):
    """What a text file holds.

    Attributes:
        values: ``[rows, columns]`` float64, NaN where missing.
        columns: their names, or None without a header.
        lines: ``[rows]``, the line of the file on which each row ends, from 1.
        labels: the text of the label column, as written, or None.
        unmatched: what was said to stand for a missing value, beside `MISSING`, and is no cell.
        doubt: why the first row, which was read as the header or as data, may be the other; empty if that is clear.
    """

    values: np.ndarray
    columns: tuple[str, ...] | None
    lines: np.ndarray
    labels: tuple[str, ...] | None
    unmatched: tuple[str, ...] = ()
    doubt: str = ""


def read_table(
    path: Path,
    *,
    labels: str | None = None,
    without: tuple[str, ...] = (),
    delimiter: str | None = None,
    missing: tuple[str, ...] = MISSING,
    header: bool | None = None,
    limit: int = LIMIT,
) -> Table:
    r"""Reads a table of numbers.

    Blank lines are skipped; quotes, a byte-order mark and any line ends are understood, and so is a first line ``sep=;``.

    Args:
        path: the file, UTF-8.
        labels: the column (by name; x_0, x_1, … without a header) to take out as text, character by character as written.
        without: columns (by name; x_0, x_1, … without a header) that are not read.
        delimiter: one character; a space stands for runs of blanks. None: `vaejax.data.dialect.find_delimiter`.
        missing: cells that stand for a missing value: as text without surrounding blanks, and numbers in any spelling (-9 is -9.00).
        header: whether the first row holds names. None: if one of its cells is neither a number nor a missing value.
        limit: the most bytes to read.

    Raises:
        DataFileError: naming line and column: rows of different lengths, cells that are no numbers or infinite, whole numbers
            that float64 rounds, missing labels, a name twice, no rows, not UTF-8, no such column.
        MissingDataError: it is not there.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "scores.csv"
        >>> _ = path.write_text("math,school,art\n3,north,NA\n4,south,1\n")
        >>> table = read_table(path, labels="school")
        >>> table.columns, table.labels, table.values.tolist()
        (('math', 'art'), ('north', 'south'), [[3.0, nan], [4.0, 1.0]])
    """
    path = Path(path)
    with reading(path, "a table of text"):
        if path.stat().st_size > limit:
            raise DataFileError(f"{path} is larger than {limit} bytes; convert it to .npy")
        text = decode(path.read_bytes(), path)
        first = next(read_rows(text, path, delimiter), None)
        if first is None:
            raise DataFileError(f"{path} is empty; one row of numbers an example is wanted")
        layout = _layout(path, first, labels, without, missing_tokens(missing), header)
        table = _read(layout, read_rows(text, path, delimiter))
        _refuse_rounded(layout, table, read_rows(text, path, delimiter))
    unmatched = tuple(token for token in missing if token not in MISSING and token.strip() not in layout.matched)
    return table._replace(unmatched=unmatched)


class _Layout(NamedTuple):
    """What is known of a table before its rows are read; ``matched`` collects the tokens of missing values that occur."""

    path: Path
    width: int
    header: list[str] | None
    label_at: int | None
    numbers_at: list[int]
    names: tuple[str, ...] | None
    missing: Missing
    matched: set[str]
    doubt: str


_Rows = Iterator[tuple[int, list[str]]]


def _layout(
    path: Path,
    first: tuple[int, list[str]],
    labels: str | None,
    without: tuple[str, ...],
    missing: Missing,
    header: bool | None,
) -> _Layout:
    line, cells = first
    doubt = ""
    if header is None:
        header, doubt = guess_header(path, line, cells, missing)
    names = check_names(path, [cell.strip() for cell in cells], doubt) if header else None
    known = names or [f"x_{j}" for j in range(len(cells))]
    assumed = doubt if header else ""
    at = label_column(path, known, labels, assumed, nameless=names is None)
    numbers_at = columns_left(path, known, at, without, assumed)
    unnamed = names is None and not without and at is None
    chosen = None if unnamed else tuple(known[i] for i in numbers_at)
    return _Layout(path, len(cells), names, at, numbers_at, chosen, missing, set(), doubt)


def _data_rows(layout: _Layout, rows: _Rows) -> _Rows:
    return rows if layout.header is None else itertools.islice(rows, 1, None)


def _read(layout: _Layout, rows: _Rows) -> Table:
    numbers, lines, labels = array.array("d"), array.array("q"), []
    for line, row in _data_rows(layout, rows):
        label, values = _row(layout, line, row)
        numbers.extend(values)
        lines.append(line)
        labels.append(label)
    if not lines:
        raise DataFileError(f"{layout.path} has a header and no rows; one row of numbers an example is wanted")
    table = np.array(numbers).reshape(len(lines), -1)
    for value in layout.missing.numbers:
        hits = table == value
        if hits.any():
            layout.matched.update(matches(repr(value), layout.missing))
            table[hits] = math.nan
    texts = None if layout.label_at is None else tuple(labels)
    return Table(table, layout.names, np.array(lines), texts, doubt=layout.doubt)


def _refuse_rounded(layout: _Layout, table: Table, rows: _Rows) -> None:
    """Raises where a cell spells a whole number that float64 does not hold; reads the text again only if a number is that large."""
    large = (np.abs(table.values) >= 2.0**53).any(axis=1)
    if not large.any():
        return
    for (line, row), chosen in zip(_data_rows(layout, rows), large.tolist()):
        for column in layout.numbers_at if chosen else ():
            if is_rounded(row[column]) and not is_missing(row[column], layout.missing):
                raise DataFileError(
                    f"{_place(layout, line, column)} is {one_line(row[column])}, which float64 rounds to {float(row[column]):.0f}; "
                    "name a column of identifiers as labels=, leave it out (without=), or rescale it"
                )


def _row(layout: _Layout, line: int, row: list[str]) -> tuple[str, list[float]]:
    """The label (empty without a label column) and the numbers of one row."""
    if len(row) != layout.width:
        came = "1 cell" if len(row) == 1 else f"{len(row)} cells"
        raise DataFileError(
            f"{layout.path}, line {line} has {came}, the first row has {layout.width}; give every row as many, or say delimiter= if "
            "another separates them"
        )
    label = ""
    if layout.label_at is not None:
        label = row[layout.label_at]
        _refuse_missing_label(layout, line, label)
    if len(layout.numbers_at) < layout.width:
        row = [row[i] for i in layout.numbers_at]
    try:
        numbers = list(map(float, row))
    except ValueError:
        numbers = [math.nan]
    # float() reads 1_000 as a thousand.
    if math.isfinite(sum(numbers)) and "_" not in "".join(row):
        return label, numbers
    return label, [_cell(layout, line, i, cell.strip()) for i, cell in zip(layout.numbers_at, row)]


def _refuse_missing_label(layout: _Layout, line: int, label: str) -> None:
    if label.strip() and not is_missing(label, layout.missing):
        return
    text = label.strip()
    remedy = (
        f"; vaejax.data.load(..., missing=) without {one_line(text)!r} reads it as a class"
        if text in MISSING[1:]
        else ""
    )
    raise DataFileError(
        f"{_place(layout, line, layout.label_at or 0)} is a missing label; remove the row or label it{remedy}"
    )


def _cell(layout: _Layout, line: int, column: int, cell: str) -> float:
    if is_missing(cell, layout.missing):
        layout.matched.update(matches(cell, layout.missing))
        return math.nan
    value = number(cell)
    if value is not None and math.isfinite(value):
        return value
    where = _place(layout, line, column)
    if value is not None:
        raise DataFileError(
            f"{where} is infinite ({one_line(cell)!r}); remove the row, or leave the cell empty if it is missing"
        )
    hint = advice(cell, layout.width)
    if hint is None and looks_missing(cell):
        hint = f"list it in missing={one_line(cell)!r} if it stands for a missing value"
    elif hint is None:
        hint = "name a column of text as labels=, leave it out (without=), or list the token in missing="
        hint += header_remark(layout.doubt if layout.header else "")
    raise DataFileError(f"{where} is no number: {one_line(cell)!r}; {hint}")


def _place(layout: _Layout, line: int, column: int) -> str:
    return f"{layout.path}, line {line}, column {column + 1 if layout.header is None else repr(one_line(layout.header[column]))}"
