"""How a table of text is written: its encoding, and the character that separates its cells."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from vaejax.data.errors import DataFileError

DELIMITERS = (",", ";", "\t", "|")
# Lines that are compared where more than one delimiter occurs in the first.
_SAMPLED = 10
# Empty cells, and numbers with any use of points and commas.
_NUMERIC = re.compile(r"|[+-]?[\d.,]*\d(?:[eE][+-]?\d+)?")
# The line with which spreadsheets announce a delimiter.
_ANNOUNCED = re.compile(r'"?sep=([^"\r\n])"?[ \t]*(?:\r\n|\r|\n|$)', re.IGNORECASE)
_FORMATS = {
    b"PK\x03\x04": "a zip archive or a spreadsheet's own format; save it as CSV",
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"PAR1": "a Parquet file; save it as CSV",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet's own format; save it as CSV",
    b"\x93NUMPY": "a NumPy array; name it .npy",
}


def decode(raw: bytes, path: Path) -> str:
    """Returns the text of a file in UTF-8, with or without a byte-order mark.

    Raises:
        DataFileError: other encodings, and formats that are not text; the message names the encoding or the format.
    """
    for magic, what in _FORMATS.items():
        if raw.startswith(magic):
            raise DataFileError(f"{path} is {what}")
    wide = _wide_encoding(raw)
    if wide is not None:
        raise DataFileError(f"{path} is {wide} text; save it as UTF-8 (spreadsheets name it CSV UTF-8)")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataFileError(
            f"{path}, line {line}: a byte that is not UTF-8 text; save the file as UTF-8 (it may be Latin-1 or Windows-1252)"
        ) from None


def _wide_encoding(raw: bytes) -> str | None:
    """Returns the encoding whose characters are of two or four bytes, by the byte-order mark or by the zero bytes of plain letters."""
    if raw.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    head = raw[:4096]
    shares = [head[start::2].count(0) / max(len(head[start::2]), 1) for start in (0, 1)]
    return "UTF-16" if max(shares) > 0.5 else None


def read_rows(text: str, path: Path, delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows that are not blank, each with the number of its (last) line.

    A first line ``sep=;`` names the delimiter, unless ``delimiter`` does, and is skipped.

    Args:
        text: of the file.
        path: for messages.
        delimiter: one character; a space stands for runs of blanks. None: `find_delimiter`.

    Raises:
        DataFileError: quotes or line ends that are not as CSV has them; no clear delimiter.
    """
    announced = _ANNOUNCED.match(text)
    if announced is not None:
        text, delimiter = text[announced.end() :], delimiter or announced[1]
    offset = 0 if announced is None else 1
    stream: Iterator[str] = io.StringIO(text, newline="")
    delimiter = delimiter or find_delimiter(text, path)
    if delimiter == " ":
        stream = (line.strip() for line in stream)
    reader = csv.reader(stream, delimiter=delimiter, strict=True, skipinitialspace=delimiter == " ")
    try:
        for row in reader:
            if len(row) > 1 or (row and row[0].strip()):
                yield reader.line_num + offset, row
    except csv.Error as error:
        line = reader.line_num + offset
        raise DataFileError(f"{path}, line {line}: {error}; correct the quotes or line ends there") from None


def find_delimiter(text: str, path: Path) -> str:
    r"""Returns what separates the cells of the first row that is not blank.

    Where several of comma, semicolon, tab and bar occur in it, the first lines decide: the delimiter that gives rows of one length
    and the most numbers, then the most frequent one. A .tsv is separated by tabs.

    Raises:
        DataFileError: a .tsv without tabs whose rows another delimiter cuts into equal numbers of cells.

    Examples:
        >>> find_delimiter("a;b\n1,5;2,5\n", Path("t.csv")), find_delimiter("1,5;2,5\n3,5;4,5\n", Path("t.csv"))
        (';', ';')
    """
    first = re.search(r"[^\r\n]*\S[^\r\n]*", text)
    unquoted = re.sub(r'"[^"]*"', "", first.group() if first else "")
    candidates = [delimiter for delimiter in DELIMITERS if delimiter in unquoted]
    if path.suffix.lower() == ".tsv" and "\t" not in candidates:
        lines = _first_lines(text)
        other = next((d for d in candidates if len(lines) > 1 and _fitness(lines, d)[0]), None)
        if other is not None:
            decimals = ", or write decimals with a point if the commas are decimal" if other == "," else ""
            raise DataFileError(
                f"{path} ends in .tsv, and its first row has no tab; say delimiter={other!r} if that separates the cells{decimals}"
            )
        return "\t"
    if "\t" in candidates and path.suffix.lower() == ".tsv":
        return "\t"
    if len(candidates) < 2:
        return candidates[0] if candidates else ","
    lines = _first_lines(text)
    return max(candidates, key=lambda delimiter: (*_fitness(lines, delimiter), unquoted.count(delimiter)))


def _first_lines(text: str) -> list[str]:
    lines = re.finditer(r"[^\r\n]*\S[^\r\n]*", text)
    return [line.group() for _, line in zip(range(_SAMPLED), lines)]


def _fitness(lines: list[str], delimiter: str) -> tuple[bool, float]:
    """Whether a delimiter cuts the lines into equal numbers of cells, and the share of numbers below the first line."""
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return False, 0.0
    cells = [cell.strip() for row in rows[1:] or rows for cell in row]
    numbers = sum(_NUMERIC.fullmatch(cell) is not None for cell in cells)
    return len({len(row) for row in rows}) == 1, numbers / max(len(cells), 1)
