"""The idx format of MNIST: a magic number, sizes, values; read without trusting any of them."""

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np

from vaejax.data.errors import LIMIT, DataFileError, reading

_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_MAX_AXES = 8
_CHUNK = 1 << 20


def read_idx(path: Path, *, limit: int = LIMIT) -> np.ndarray:
    """Reads an idx file, gzipped or plain.

    The format: two zero bytes, a byte for the dtype, one for the number of axes, their sizes as big-endian 32-bit
    integers, then the values, C order, big-endian. The bytes must be as many as the sizes say; in a gzip file the checksum is checked too.

    Args:
        path: the file.
        limit: the most bytes to unpack.

    Returns:
        An array of the announced shape, in native byte order.

    Raises:
        DataFileError: for whatever is wrong with the file.
        MissingDataError: it is not there.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "three.idx"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        >>> read_idx(path)
        array([7, 8, 9], dtype=uint8)
    """
    path = Path(path)
    with reading(path, "an idx file"), path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not zipped:
            return _parse(raw, path, limit)
        with gzip.GzipFile(fileobj=raw) as unpacked:
            return _parse(unpacked, path, limit)


def _parse(stream: Any, path: Path, limit: int) -> np.ndarray:
    magic = _exactly(stream, 4, path)
    if magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise DataFileError(
            f"{path} is no idx file: it begins with the bytes {magic.hex(' ')}, wanted 00 00, a dtype code among "
            f"{', '.join(f'{c:02x}' for c in _DTYPES)} and the number of axes; get the file again"
        )
    if not 1 <= magic[3] <= _MAX_AXES:
        raise DataFileError(f"{path} announces {magic[3]} axes, wanted 1 to {_MAX_AXES}; get the file again")
    dtype = np.dtype(_DTYPES[magic[2]])
    shape = tuple(int(n) for n in np.frombuffer(_exactly(stream, 4 * magic[3], path), ">u4"))
    size = math.prod(shape) * dtype.itemsize
    if size > limit:
        raise DataFileError(f"{path} announces {size} bytes, more than the limit of {limit}; use a smaller file")
    values = _exactly(stream, size, path)
    # Reading on to the end is also what makes gzip compare its checksum.
    if stream.read(1):
        raise DataFileError(f"{path} goes on after the {size} bytes that its shape {shape} needs; get the file again")
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _exactly(stream: Any, size: int, path: Path) -> bytearray:
    # In chunks: the header may announce gigabytes that are not there.
    values = bytearray()
    while len(values) < size:
        chunk = stream.read(min(_CHUNK, size - len(values)))
        if not chunk:
            raise DataFileError(f"{path} ends {size - len(values)} bytes early; it is cut off: get the file again")
        values += chunk
    return values
