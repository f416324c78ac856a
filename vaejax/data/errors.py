"""Errors about data files, and the one place where what the libraries raise becomes one of them."""

import contextlib
import csv
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: The most bytes that are unpacked from one compressed file.
LIMIT = 2 << 30

_LIBRARY = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    SyntaxError,
    RuntimeError,
    AttributeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    tokenize.TokenError,
    csv.Error,
)


class DataFileError(ValueError):
    """A file of data that is damaged, or not such as it should be; the message names the file, the defect and what to do."""


class MissingDataError(FileNotFoundError):
    """A file of data that is not there; the message says where it was looked for and where it comes from."""


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turns whatever reading a file raises into a `DataFileError` or `MissingDataError`; warnings stay inside.

    Args:
        path: the file.
        what: what it should be, for the message: "gzip file", "array".
    """
    try:
        with warnings.catch_warnings():
            # numpy warns of headers that Python 2 wrote, the compiler of odd escapes in damaged ones: not the caller's doing.
            warnings.simplefilter("ignore")
            yield
    except (DataFileError, MissingDataError):
        raise
    except FileNotFoundError:
        raise MissingDataError(f"there is no file {path}; check the path and the folder you run in") from None
    except MemoryError:
        raise DataFileError(f"{path}: reading it takes more memory than there is; use a smaller file") from None
    except _LIBRARY as error:
        came = one_line(error) or type(error).__name__
        raise DataFileError(f"{path} cannot be read as {what}: {came}; get or write the file again") from error


def one_line(value: Any) -> str:
    r"""The text of ``value`` on one line, cut where it is long.

    Examples:
        >>> one_line("two\n lines")
        'two lines'
    """
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else text[:200] + " …"
