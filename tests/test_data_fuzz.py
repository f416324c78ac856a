"""Ten thousand damaged files: each is refused by a DataFileError, or loads to arrays that keep every promise."""

import collections
import gzip
import io
import resource
import struct
import time
import warnings
import zipfile

import numpy as np
import pytest

from vaejax import data
from vaejax.data.idx import read_idx

X = (np.arange(120).reshape(20, 6) * 37 % 256).astype(np.uint8)
SEEDS = 2500


def saved(save, *arrays, **named):
    stream = io.BytesIO()
    save(stream, *arrays, **named)
    return stream.getvalue()


def idx_files():
    plain = bytes([0, 0, 8, 2]) + struct.pack(">2I", *X.shape) + X.tobytes()
    floats = bytes([0, 0, 13, 2]) + struct.pack(">2I", *X.shape) + X.astype(">f4").tobytes()
    return [plain, floats, gzip.compress(plain, mtime=0), gzip.compress(floats, mtime=0)]


def npy_files():
    holed = np.where(X > 200, np.nan, X)
    arrays = [
        X,
        holed,
        holed.astype(np.float32),
        X.astype(">i4"),
        np.asfortranarray(X, np.int64),
        X.reshape(20, 2, 3),
        X > 9,
    ]
    return [saved(np.save, array) for array in arrays] + [saved(np.save, X.astype(object), allow_pickle=True)]


def npz_files():
    labels = np.arange(20) % 3
    return [
        saved(np.savez, x=X, y=labels),
        saved(np.savez_compressed, x=X, labels=labels.astype("U2")),
        saved(np.savez_compressed, train=X, valid=X, test=X),
        saved(np.savez, x=X.astype(object)),
    ]


def csv_files():
    rows = "\n".join(",".join(str(v) if v % 11 else "NA" for v in row) for row in X.tolist())
    text = "a,b,c,d,e,f\n" + rows + "\n"
    real = "\r\n".join(";".join(f"{v / 7:.4g}" for v in row) for row in X.tolist())
    return [
        text.encode(),
        real.encode(),
        b"\xef\xbb\xbf" + text.replace(",", "\t").encode(),
        text.replace("a", '"q""r"', 1).encode(),
    ]


NASTY = [
    b"", b"\0" * 8, b"\xff" * 4, b"\x80\x04.", b"PK\x05\x06", b"PK\x01\x02", b'"', b",,", b"\n", b"\r", b"inf", b"1e999", b"nan", b"-",
    b"(", b"{", b"9" * 40, b"'", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"|O", b"<c8", b"-1", b"True", b"\\x", b"\x1f\x8b", b"_",
]  # fmt: skip


def mutated(content, others, rng):
    """One to three of: cut, bit flips, a length field, a splice with another file, odd tokens, random bytes, a repeat."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        size = len(content)
        at = int(rng.integers(0, min(size, 160) + 1 if rng.random() < 0.5 else size + 1))
        match rng.integers(0, 8):
            case 0:
                del content[at:]
            case 1:
                for place in rng.integers(0, max(size, 1), rng.integers(1, 5)):
                    if size:
                        content[place] ^= 1 << int(rng.integers(0, 8))
            case 2:
                value = int(rng.choice([0, 1, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, rng.integers(0, 2**32)]))
                content[at : at + 4] = struct.pack(rng.choice(["<I", ">I"]), value)
            case 3:
                other = others[rng.integers(0, len(others))]
                content[at:] = other[int(rng.integers(0, len(other))) :]
            case 4:
                content[at : at + int(rng.integers(0, 6))] = NASTY[rng.integers(0, len(NASTY))]
            case 5:
                content[at : at + int(rng.integers(0, 40))] = rng.bytes(rng.integers(0, 40))
            case 6:
                content[at:at] = content[at : at + int(rng.integers(1, 200))]
            case 7:
                del content[at : at + int(rng.integers(1, 20))]
    return bytes(content)


def assert_promises(dataset, precise):
    parts = dataset[:3]
    for part, name in zip(parts, ("train", "validation", "test")):
        x, mask = part.x, part.mask
        assert x.dtype in ((np.float64,) if precise else (np.uint8, np.int32, np.float32))
        assert x.dtype == parts[0].x.dtype
        assert x.ndim >= 2
        assert x.shape[1:] == parts[0].x.shape[1:]
        assert x.size > 0
        assert np.isfinite(x).all()
        if mask is not None:
            assert mask.shape == x.shape
            assert mask.dtype == bool
            assert not x[~mask].any()
            assert mask.reshape(len(x), -1).any(axis=1).all()
        if dataset.labels is not None:
            assert dataset.labels[name].shape == (len(x),)
            assert dataset.labels[name].max() < len(dataset.label_names)
    if dataset.columns is not None:
        assert len(set(dataset.columns)) == len(dataset.columns) == parts[0].x.shape[1]
    str(data.describe(dataset))


def attempt(path, kind):
    """Loads what is at ``path``; whether it could be. Anything but a DataFileError is the test's failure."""
    try:
        if kind == "idx":
            came = read_idx(path)
            assert came.size * came.dtype.itemsize <= 2 * path.stat().st_size or path.read_bytes()[:2] == b"\x1f\x8b"
        else:
            with warnings.catch_warnings(record=True) as remarks:
                # A damaged first row may or may not be a header, and damaged numbers may not fit float32.
                warnings.simplefilter("always", UserWarning)
                came = data.load(path)
            assert all(
                "was taken for the header" in str(r.message) or "float32 rounds" in str(r.message) for r in remarks
            )
            assert_promises(came, precise=any("stay float64" in str(r.message) for r in remarks))
    except data.DataFileError as error:
        message, came = str(error), None
    else:
        message = ""
    assert "\n" not in message
    assert len(message) < 900
    return came


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_ten_thousand_damaged_files(tmp_path, capsys):
    """2500 of each kind, seeded. No announced size may cost minutes or memory."""
    before, counts, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, collections.Counter(), 0.0
    started = time.perf_counter()
    for kind, files in (("idx", idx_files()), ("npy", npy_files()), ("npz", npz_files()), ("csv", csv_files())):
        path = tmp_path / f"x.{kind}"
        rng = np.random.default_rng(20261121)
        for content in files:
            path.write_bytes(content)
            assert (attempt(path, kind) is None) == (b"|O" in content), content
        for number in range(SEEDS):
            path.write_bytes(mutated(files[number % len(files)], files, rng))
            begun = time.perf_counter()
            counts[kind, "refused" if attempt(path, kind) is None else "loaded"] += 1
            slowest = max(slowest, time.perf_counter() - begun)
    seconds = time.perf_counter() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    with capsys.disabled():
        print(f"\n{dict(counts)}; {seconds:.1f} s, the slowest {slowest * 1000:.0f} ms, {grown:.0f} MiB more memory")
    assert sum(counts.values()) == 10_000
    # Neither all refused (then nothing but the front door was tried) nor many let through.
    for kind in ("idx", "npy", "npz", "csv"):
        assert 10 < counts[kind, "loaded"] < 1700
    assert slowest < 5
    assert seconds < 120
    assert grown < 300


@pytest.mark.parametrize("kind", ["idx", "npz"])
def test_a_flip_in_a_packed_file_never_changes_a_value(tmp_path, kind):
    """gzip and zip have checksums: every single-bit damage is an error or harmless (a time stamp)."""
    content = idx_files()[2] if kind == "idx" else saved(np.savez_compressed, x=X)
    path, counts = tmp_path / f"x.{kind}", collections.Counter()
    path.write_bytes(content)
    whole = read_idx(path) if kind == "idx" else data.load(path).train.x
    rng = np.random.default_rng(0)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(damaged)
        came = attempt(path, kind)
        counts["refused" if came is None else "harmless"] += 1
        if came is not None:
            np.testing.assert_array_equal(came if kind == "idx" else came.train.x, whole)
    assert counts["refused"] > 0.7 * len(content)


def test_bombs_cost_nothing(tmp_path):
    """Hundreds of megabytes of zeros in a few hundred kilobytes, behind small and large announcements."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w") as member,
    ):
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (2, 10)})
        for _ in range(100):
            member.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    path = tmp_path / "x.npz"
    for content in (stream.getvalue(), stream.getvalue().replace(struct.pack("<I", 100 << 20), struct.pack("<I", 148))):
        path.write_bytes(content)
        with pytest.raises(data.DataFileError):
            data.load(path)
    assert time.perf_counter() - started < 5
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 50
