"""The safe readers of idx, .npy and .npz: right on good files, one clear error for each kind of damage."""

import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from vaejax.data import DataFileError, MissingDataError
from vaejax.data.idx import read_idx
from vaejax.data.numpy_files import npz_names, read_npy, read_npz


def idx(array, code=8, shape=None):
    shape = array.shape if shape is None else shape
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def npz(members, method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


SMALL = np.arange(12, dtype=np.uint8).reshape(3, 4)
GZIPPED = gzip.compress(idx(SMALL), mtime=0)
HEADER = b"\x93NUMPY\x01\x00"


def header(text):
    return HEADER + struct.pack("<H", len(text)) + text.encode("latin1")


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, ">u1"), (9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
)
def test_idx_of_every_dtype_plain_and_gzipped(tmp_path, code, dtype):
    array = (np.arange(24).reshape(2, 3, 4) - 5).astype(np.dtype(dtype).newbyteorder("=")).astype(dtype)
    for content in (idx(array, code), gzip.compress(idx(array, code))):
        (tmp_path / "x").write_bytes(content)
        came = read_idx(tmp_path / "x")
        np.testing.assert_array_equal(came, array)
        assert came.dtype == np.dtype(dtype).newbyteorder("=")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "ends 4 bytes early; it is cut off"),
        (b"\x01" + idx(SMALL)[1:], "is no idx file: it begins with the bytes 01 00 08 02"),
        (idx(SMALL, code=7), "a dtype code among 08, 09"),
        (idx(SMALL, shape=(1,) * 9), "announces 9 axes, wanted 1 to 8"),
        (idx(SMALL, shape=()), "announces 0 axes"),
        (idx(SMALL)[:-1], "ends 1 bytes early"),
        (idx(SMALL)[:9], "ends 3 bytes early"),
        (idx(SMALL) + b"\0", "goes on after the 12 bytes"),
        (idx(SMALL, shape=(2**32 - 1,) * 4), "more than the limit of 2147483648"),
        (idx(SMALL, shape=(2**30,)), "ends 1073741812 bytes early"),
        (GZIPPED[:-9], "cannot be read as an idx file: Compressed file ended"),
        (GZIPPED[:-8] + b"\0" * 4 + GZIPPED[-4:], "CRC check failed"),
        (GZIPPED + b"more", "cannot be read as an idx file: Not a gzipped file"),
        (GZIPPED[:10] + b"\xff" + GZIPPED[11:], "cannot be read as an idx file"),
    ],
)
def test_defects_of_idx(tmp_path, content, message):
    path = tmp_path / "x-idx3"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_unpacking_stops_at_what_the_header_announced(tmp_path):
    """A gzip bomb of 200 MB behind a header that announces 12 bytes costs next to no memory."""
    (tmp_path / "x").write_bytes(gzip.compress(idx(SMALL) + bytes(200_000_000), 1))
    tracemalloc.start()
    with pytest.raises(DataFileError, match="goes on after"):
        read_idx(tmp_path / "x")
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()
    (tmp_path / "x").write_bytes(gzip.compress(idx(np.zeros(2_000_000, np.uint8)), 1))
    with pytest.raises(DataFileError, match="announces 2000000 bytes, more than the limit of 1000000"):
        read_idx(tmp_path / "x", limit=1_000_000)


def test_files_that_are_not_there(tmp_path):
    for read in (read_idx, read_npy, npz_names):
        with pytest.raises(MissingDataError, match="there is no file"):
            read(tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a .npy file"),
        (b"not numpy at all", "cannot be read as a .npy file"),
        (npy(SMALL)[:-1], r"shape \(3, 4\) of uint8 needs 12 bytes, 11 are there"),
        (npy(SMALL) + b"\0", "needs 12 bytes, 13 are there"),
        (HEADER[:6] + b"\x03\x00" + npy(SMALL)[8:], "version 3.0, wanted 1.0 or 2.0"),
        (HEADER[:6] + b"\x09\x00" + npy(SMALL)[8:], "cannot be read as a .npy file|version 9.0"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1)}\n") + b"\x80\x04.", "dtype object"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -3)}\n") + b"abc", "impossible shape"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (2**40,)}\n"), "cannot be read"),
        (header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {(2**60,) * 9}}}\n"), "needs .* bytes, 0 are"),
        (header("{'descr': '|V0', 'fortran_order': False, 'shape': (3,)}\n"), "wanted integers"),
        (header("{1: 2, 'a': 3}\n"), "cannot be read as a .npy file"),
        (header("(" * 5000), "cannot be read as a .npy file|more memory"),
        (header("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2L)}\n") + b"ab", None),
        (header(" " * 20_000), "cannot be read as a .npy file"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100, "cannot be read as a .npy file"),
    ],
)
def test_defects_of_npy(tmp_path, content, message):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    if message is None:
        # Python 2 wrote its long integers so; numpy reads them with a warning, which stays inside.
        np.testing.assert_array_equal(read_npy(path), [[97, 98]])
        return
    with pytest.raises(DataFileError, match=message) as caught:
        read_npy(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 700


def patched(content, offset, value, record=b"PK\x01\x02"):
    """A zip file with bytes of its (last) directory entry replaced."""
    at = content.rindex(record) + offset
    return content[:at] + value + content[at + len(value) :]


STORED = npz([("x.npy", npy(SMALL))], zipfile.ZIP_STORED)


def test_npz_members(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(npz([("a.npy", npy(SMALL)), ("b.npy", npy(SMALL * 2, version=(2, 0)))]))
    assert npz_names(path) == ("a", "b")
    np.testing.assert_array_equal(read_npz(path, "b"), SMALL * 2)
    with pytest.raises(DataFileError, match="has no array 'c'; its arrays are 'a', 'b'"):
        read_npz(path, "c")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"PK", "cannot be read as an .npz archive: File is not a zip file"),
        (lambda: npz([]), "is an empty archive"),
        (lambda: npz([("x.npy", npy(SMALL)), ("read.me", b"")]), "holds 'read.me', which is no .npy array"),
        (lambda: npz([("x.npy", npy(SMALL))] * 2), "holds 'x.npy' twice"),
        (lambda: npz([(f"{i}.npy", b"") for i in range(1001)]), "has 1001 members, at most 1000"),
        (lambda: npz([("x.npy", npy(SMALL))], zipfile.ZIP_LZMA), "packed by method 14, which numpy does not write"),
        (lambda: patched(STORED, 8, b"\x01"), "'x.npy' is encrypted"),
        (lambda: patched(STORED, 24, b"\xff\xff\xff\xf0"), "unpacks to 4043309055 bytes, more than the limit"),
        (lambda: patched(STORED, 24, b"\xff\xff\xff\x00"), "needs 12 bytes, 16777087 are there"),
        (lambda: STORED.replace(SMALL.tobytes(), bytes(12)), "Bad CRC-32"),
        (lambda: npz([("x.npy", npy(np.array([[{}]], object), allow_pickle=True))]), "array 'x' holds values of dtype"),
        (lambda: npz([("x.npy", b"text")]), "cannot be read as an .npz archive"),
    ],
)
def test_defects_of_npz(tmp_path, content, message):
    path = tmp_path / "x.npz"
    path.write_bytes(content())
    with pytest.raises(DataFileError, match=message) as caught:
        read_npz(path, npz_names(path)[0])
    assert str(path) in str(caught.value)


def test_a_zip_bomb_is_refused_by_what_it_announces_and_by_what_it_holds(tmp_path):
    """Declared honestly it is over the limit; declared small it is cut where it said it ends, and fails its checksum."""
    path, zeros = tmp_path / "x.npz", npy(np.zeros(50_000_000, np.uint8))
    bomb = npz([("x.npy", zeros)])
    path.write_bytes(bomb)
    with pytest.raises(DataFileError, match="more than the limit of 1000000; save a large array"):
        read_npz(path, "x", limit=1_000_000)
    path.write_bytes(patched(bomb, 24, struct.pack("<I", 140)))
    tracemalloc.start()
    with pytest.raises(DataFileError):
        read_npz(path, "x")
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_a_flip_anywhere_in_packed_values_is_seen(tmp_path):
    """Every bit of the deflated stream of a gzip file and of an archive: an error, or the same values."""
    packed = npz([("x.npy", npy(SMALL))])
    start = packed.index(b"x.npy") + 5
    length = len(zlib.compress(npy(SMALL))) - 6
    seen = 0
    for content, region, read in (
        (GZIPPED, range(10, len(GZIPPED)), read_idx),
        (packed, range(start, start + length), lambda path: read_npz(path, "x")),
    ):
        for byte in region:
            damaged = bytearray(content)
            damaged[byte] ^= 1 << byte % 8
            (tmp_path / "x").write_bytes(damaged)
            try:
                np.testing.assert_array_equal(read(tmp_path / "x"), SMALL)
            except DataFileError:
                seen += 1
    assert seen > 100
