"""numpy's .npy and .npz files, read without pickle, without trust in their headers and without unpacking bombs."""

import io
import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from vaejax.data.errors import LIMIT, DataFileError, one_line, reading

_MAX_HEADER = 10_000
_MAX_MEMBERS = 1_000
_NUMBERS = "biuf"
_ENCRYPTED = 0x1


def read_npy(path: Path, *, text: bool = False) -> np.ndarray:
    """Reads one array of numbers (with ``text`` also of strings) from a ``.npy`` file.

    Raises:
        DataFileError: for whatever is wrong with the file, also arrays of objects, complex numbers, dates, records.
        MissingDataError: it is not there.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(path, np.arange(3, dtype=np.int16))
        >>> read_npy(path)
        array([0, 1, 2], dtype=int16)
    """
    path = Path(path)
    with reading(path, "a .npy file"), path.open("rb") as stream:
        return _read_array(stream, path.stat().st_size, str(path), text)


def npz_names(path: Path, *, limit: int = LIMIT) -> tuple[str, ...]:
    """The names of the arrays in an ``.npz`` archive, whose directory is checked.

    Raises:
        DataFileError: no zip archive, too many members, a name twice, a member that is no array or is encrypted, or more than
            ``limit`` bytes once unpacked.
        MissingDataError: it is not there.
    """
    path = Path(path)
    with reading(path, "an .npz archive"), zipfile.ZipFile(path) as archive:
        return tuple(_members(archive, path, limit))


def read_npz(path: Path, name: str, *, text: bool = False, limit: int = LIMIT) -> np.ndarray:
    """Reads the array ``name`` from an ``.npz`` archive, as `read_npy` does; its checksum is checked.

    Raises:
        DataFileError: as for `npz_names`, or a damaged array, or no array of that name.
        MissingDataError: the archive is not there.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "two.npz"
        >>> np.savez(path, a=np.zeros(2), b=np.ones(1))
        >>> npz_names(path), read_npz(path, "b")
        (('a', 'b'), array([1.]))
    """
    path = Path(path)
    with reading(path, "an .npz archive"), zipfile.ZipFile(path) as archive:
        members = _members(archive, path, limit)
        if name not in members:
            raise DataFileError(f"{path} has no array {name!r}; its arrays are {names_of(tuple(members))}")
        with archive.open(members[name]) as stream:
            return _read_array(stream, members[name].file_size, f"{path}, array {name!r}", text)


def names_of(names: tuple[str, ...]) -> str:
    """The first names of many, for a message."""
    return one_line(", ".join(repr(one_line(n)) for n in names[:10]) + (", …" if len(names) > 10 else ""))


def _members(archive: zipfile.ZipFile, path: Path, limit: int) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if not infos:
        raise DataFileError(f"{path} is an empty archive; write it with numpy.savez(path, x=array)")
    if len(infos) > _MAX_MEMBERS:
        raise DataFileError(f"{path} has {len(infos)} members, at most {_MAX_MEMBERS} are read; write fewer arrays")
    unpacked = sum(info.file_size for info in infos)
    if unpacked > limit:
        raise DataFileError(
            f"{path} unpacks to {unpacked} bytes, more than the limit of {limit}; save a large array as .npy, which has none"
        )
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        if not name.endswith(".npy"):
            raise DataFileError(f"{path} holds {one_line(name)!r}, which is no .npy array; write it with numpy.savez")
        if info.flag_bits & _ENCRYPTED:
            raise DataFileError(f"{path}: {one_line(name)!r} is encrypted; write it with numpy.savez")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataFileError(
                f"{path}: {one_line(name)!r} is packed by method {info.compress_type}, which numpy does not write; "
                "use numpy.savez_compressed"
            )
        if name.removesuffix(".npy") in members:
            raise DataFileError(f"{path} holds {one_line(name)!r} twice; write it with numpy.savez")
        members[name.removesuffix(".npy")] = info
    return members


def _read_array(stream: IO[bytes], size: int, where: str, text: bool) -> np.ndarray:
    # numpy reads as many header bytes as the file announces before it looks at their number: hand it no more than a few.
    head = io.BytesIO(stream.read(min(size, _MAX_HEADER + 12)))
    shape, fortran, dtype = _header(head, where)
    if dtype.hasobject or dtype.kind not in _NUMBERS + "U" * text:
        raise DataFileError(
            f"{where} holds values of dtype {one_line(dtype)}, wanted integers, floats or bools; convert it with astype"
        )
    if any(n < 0 for n in shape) or len(shape) > 32:
        raise DataFileError(f"{where} has the impossible shape {one_line(shape)}; write the file again")
    wanted, there = math.prod(shape) * dtype.itemsize, size - head.tell()
    if wanted != there:
        raise DataFileError(
            f"{where}: shape {one_line(shape)} of {dtype} needs {one_line(wanted)} bytes, {there} are there; write the file again"
        )
    if wanted == 0:
        raise DataFileError(f"{where} is empty: its shape is {one_line(shape)}; at least one value is needed")
    values = head.read()
    values += stream.read(wanted - len(values) + 1)
    if len(values) != wanted:
        raise DataFileError(f"{where} has {len(values)} bytes of values, wanted {wanted}; write the file again")
    array = np.frombuffer(values, dtype).reshape(shape, order="F" if fortran else "C")
    array = np.ascontiguousarray(array).astype(dtype.newbyteorder("="), copy=False).reshape(shape)
    if dtype.kind == "U":
        points = np.frombuffer(array.tobytes(), np.uint32)
        # Such text could be neither sorted nor printed.
        if ((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any():
            raise DataFileError(f"{where} holds text with impossible characters; write the file again")
    return array


def _header(head: io.BytesIO, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(head)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(head, max_header_size=_MAX_HEADER)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(head, max_header_size=_MAX_HEADER)
    raise DataFileError(
        f"{where} is of .npy version {version[0]}.{version[1]}, wanted 1.0 or 2.0 (3.0 is for records); save a plain array"
    )
