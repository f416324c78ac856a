"""Tables of numbers in text files (CSV and the like): one example a row, missing values marked."""

import array
import csv
import difflib
import io
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaejax.data.errors import LIMIT, DataFileError, one_line, reading
from vaejax.data.numpy_files import names_of

#: What stands for a missing value unless `missing` says otherwise.
MISSING = ("", "NA", "NaN", "nan", "?", ".", "null", "None")
_DELIMITERS = ",;\t"


class Table(NamedTuple):
    """What a text file holds.

    Attributes:
        values: ``[rows, columns]`` float64, NaN where missing.
        columns: their names, or None without a header.
        lines: ``[rows]``, the line of the file on which each row ends, from 1.
        labels: the text of the label column, or None.
        unmatched: what was said to stand for a missing value, beside `MISSING`, and is no cell.
    """

    values: np.ndarray
    columns: tuple[str, ...] | None
    lines: np.ndarray
    labels: tuple[str, ...] | None
    unmatched: tuple[str, ...] = ()


def read_table(
    path: Path,
    *,
    labels: str | None = None,
    without: tuple[str, ...] = (),
    delimiter: str | None = None,
    missing: tuple[str, ...] = MISSING,
    limit: int = LIMIT,
) -> Table:
    r"""Reads a table of numbers.

    The first row is a header if one of its cells is neither a number nor a missing value. Blank lines are skipped; quotes, a
    byte-order mark and any line ends are understood.

    Args:
        path: the file, UTF-8.
        labels: the column (by name) to take out as text.
        without: columns (by name; x_0, x_1, … without a header) that are not read.
        delimiter: one character; a space stands for runs of blanks. None: tab in a .tsv, else whichever of comma, semicolon
            and tab the first row has most of.
        missing: cells that stand for a missing value, compared as text.
        limit: the most bytes to read.

    Raises:
        DataFileError: naming line and column: rows of different lengths, cells that are no numbers or infinite, missing labels,
            a name twice, no rows, not UTF-8, no such column.
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
        return _parse(_text(path, limit), path, labels, without, delimiter, missing)


def _text(path: Path, limit: int) -> str:
    if path.stat().st_size > limit:
        raise DataFileError(f"{path} is larger than {limit} bytes; convert it to .npy")
    raw = path.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataFileError(f"{path} is UTF-16 text; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataFileError(f"{path}, line {line}: a byte that is not UTF-8 text; save the file as UTF-8") from None


class _Layout(NamedTuple):
    """What is known of a table before its rows are read."""

    path: Path
    width: int
    header: list[str] | None
    label_at: int | None
    numbers_at: list[int]
    missing: tuple[str, ...]
    quick: bool
    matched: set[str]


def _parse(
    text: str,
    path: Path,
    labels: str | None,
    without: tuple[str, ...],
    delimiter: str | None,
    missing: tuple[str, ...],
) -> Table:
    rows = _rows(text, path, delimiter)
    first = next(rows, None)
    if first is None:
        raise DataFileError(f"{path} is empty; one row of numbers an example is wanted")
    header = None
    if any(cell.strip() not in missing and _number(cell) is None for cell in first[1]):
        header = _checked_header(path, [cell.strip() for cell in first[1]])
    else:
        rows = itertools.chain([first], rows)
    names = header or [f"x_{j}" for j in range(len(first[1]))]
    at = _label_column(path, header, labels)
    numbers_at = columns_left(path, names, at, without)
    # float() reads 1_000 as a thousand, and does not know a number that stands for "missing": such files go cell by cell.
    quick = "_" not in text and not any(_number(token) is not None for token in missing)
    layout = _Layout(path, len(first[1]), header, at, numbers_at, missing, quick, set())
    numbers, lines, texts = array.array("d"), array.array("q"), []
    for line, row in rows:
        label, values = _row(layout, line, row)
        numbers.extend(values)
        lines.append(line)
        texts.append(label)
    if not lines:
        raise DataFileError(f"{path} has a header and no rows; one row of numbers an example is wanted")
    columns = None if header is None and not without else tuple(names[i] for i in numbers_at)
    unmatched = tuple(token for token in missing if token not in MISSING and token not in layout.matched)
    found = np.array(numbers).reshape(len(lines), -1)
    return Table(found, columns, np.array(lines), None if at is None else tuple(texts), unmatched)


def _rows(text: str, path: Path, delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its (last) line."""
    stream: Iterator[str] = io.StringIO(text, newline="")
    if delimiter is None:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else _sniff(text)
    if delimiter == " ":
        stream = (line.strip() for line in stream)
    reader = csv.reader(stream, delimiter=delimiter, strict=True, skipinitialspace=delimiter == " ")
    try:
        for row in reader:
            if len(row) > 1 or (row and row[0].strip()):
                yield reader.line_num, row
    except csv.Error as error:
        raise DataFileError(f"{path}, line {reader.line_num}: {error}; mend the quotes or line ends there") from None


def _sniff(text: str) -> str:
    first = re.search(r"[^\r\n]*\S[^\r\n]*", text)
    unquoted = re.sub(r'"[^"]*"', "", first.group() if first else "")
    return max(_DELIMITERS, key=unquoted.count)


def _checked_header(path: Path, names: list[str]) -> list[str]:
    if "" in names:
        raise DataFileError(
            f"{path}: column {names.index('') + 1} has no name in the header; name it, or remove it if it only counts the rows"
        )
    twice = (
        next((name for i, name in enumerate(names) if name in set(names[:i])), None)
        if len(set(names)) < len(names)
        else None
    )
    if twice is not None:
        raise DataFileError(f"{path} has two columns named {one_line(twice)!r}; rename or remove one")
    return names


def _label_column(path: Path, header: list[str] | None, labels: str | None) -> int | None:
    if labels is None:
        return None
    if header is None:
        raise DataFileError(
            f"{path} has no header, so that labels={labels!r} names no column; put names in the first row"
        )
    _refuse_unknown(path, header, labels)
    return header.index(labels)


def columns_left(path: Path, names: list[str], label_at: int | None, without: tuple[str, ...]) -> list[int]:
    """Where the columns of numbers stand that are not to be left out."""
    for name in without:
        _refuse_unknown(path, names, name)
    kept = [i for i, name in enumerate(names) if i != label_at and name not in without]
    if not kept:
        but = [*([] if label_at is None else [names[label_at]]), *without]
        raise DataFileError(
            f"{path} has no column but {', '.join(map(repr, but))}; columns of data are wanted beside labels and what is left out"
        )
    return kept


def _refuse_unknown(path: Path, names: list[str], name: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        header = of_the_header(names)
        raise DataFileError(f"{path} has no column {name!r}{hint} (it has {names_of(tuple(names))}){header}")


def of_the_header(names: Sequence[str] | None) -> str:
    """A remark where a header looks like a row of data."""
    numbers = names is not None and any(_number(name) is not None for name in names)
    return " (line 1, which has text, was taken for the header)" if numbers else ""


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
        label = row[layout.label_at].strip()
        if label in layout.missing:
            raise DataFileError(
                f"{_place(layout, line, layout.label_at)} is a missing label; remove the row or label it"
            )
    if len(layout.numbers_at) < layout.width:
        row = [row[i] for i in layout.numbers_at]
    if layout.quick:
        try:
            numbers = list(map(float, row))
        except ValueError:
            numbers = [math.nan]
        if math.isfinite(sum(numbers)):
            return label, numbers
    return label, [_cell(layout, line, i, cell.strip()) for i, cell in zip(layout.numbers_at, row)]


def _cell(layout: _Layout, line: int, column: int, cell: str) -> float:
    if cell in layout.missing:
        layout.matched.add(cell)
        return math.nan
    number = _number(cell)
    if number is not None and math.isfinite(number):
        return number
    where = _place(layout, line, column)
    if number is not None and math.isinf(number):
        raise DataFileError(
            f"{where} is infinite ({one_line(cell)!r}); remove the row, or leave the cell empty if it is missing"
        )
    if re.fullmatch(r"[+-]?\d*,\d+", cell):
        hint = "write decimals with a point"
    elif re.fullmatch(r"\S+(\s+\S+)+", cell) and layout.width == 1:
        hint = "say delimiter=' ' if blanks separate the cells"
    else:
        hint = "name a column of text as labels=, leave it out (without=), or list the token in missing="
        hint += of_the_header(layout.header)
    raise DataFileError(f"{where} is no number: {one_line(cell)!r}; {hint}")


def _place(layout: _Layout, line: int, column: int) -> str:
    return f"{layout.path}, line {line}, column {column + 1 if layout.header is None else repr(one_line(layout.header[column]))}"


def _number(cell: str) -> float | None:
    """The number that a cell spells (also infinite), or None; NaN is none."""
    if "_" in cell:
        return None
    try:
        number = float(cell)
    except ValueError:
        return None
    return None if math.isnan(number) else number
