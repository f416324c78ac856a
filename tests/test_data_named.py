"""Named datasets: the real files where they are, small stand-ins for every way in which a file can be wrong or absent."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from vaejax import data
from vaejax.data import registry
from vaejax.data.registry import File


def pack(array):
    return gzip.compress(
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes(), 1
    )


@pytest.fixture
def blank(tmp_path, monkeypatch):
    """MNIST of blank images (labels count up to 9 over and over), with its checksums put in place of the true ones."""
    shapes = ((60000, 28, 28), (60000,), (10000, 28, 28), (10000,))
    source, files = registry.SOURCES["mnist"], []
    (tmp_path / "mnist").mkdir()
    for file, shape in zip(source.files, shapes):
        content = pack(np.broadcast_to(np.arange(shape[0]) % 10, shape[::-1]).T.astype(np.uint8))
        (tmp_path / "mnist" / file.name).write_bytes(content)
        files.append(File(file.name, len(content), hashlib.sha256(content).hexdigest()))
    monkeypatch.setitem(registry.SOURCES, "mnist", source._replace(files=tuple(files)))
    return tmp_path


def test_mnist_is_cut_after_55000_and_60000(blank):
    mnist = data.load("mnist", blank)
    assert [p.x.shape for p in mnist[:3]] == [(55000, 28, 28), (5000, 28, 28), (10000, 28, 28)]
    assert (mnist.levels, mnist.name, mnist.train.x.dtype, mnist.labels["test"].dtype) == (
        255,
        "mnist",
        np.uint8,
        np.int32,
    )
    for part, batch in zip(("train", "validation", "test"), mnist[:3]):
        np.testing.assert_array_equal(mnist.labels[part], np.arange(len(batch.x)) % 10)
        np.testing.assert_array_equal(batch.x[:, 3, 5], mnist.labels[part])
    assert data.check("mnist", blank).classes == 10


def test_a_file_that_is_not_the_published_one(blank):
    path = blank / "mnist" / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        data.DataFileError, match=r"has SHA-256 .*; delete it and fetch it again .run `vaejax data fetch mnist`"
    ):
        data.load("mnist", blank)
    path.write_bytes(content[:-1])
    with pytest.raises(data.DataFileError, match=rf"has {len(content) - 1} bytes, the published file {len(content)}"):
        data.load("mnist", blank)
    assert not next(row for row in data.catalogue(blank) if row.name == "mnist").found
    path.unlink()
    with pytest.raises(
        data.MissingDataError, match=r"mnist needs t10k-labels-idx1-ubyte.gz, which is not in .*fetch mnist"
    ):
        data.load("mnist", blank)


def test_files_without_a_published_checksum_are_checked_by_structure(tmp_path):
    (tmp_path / "frey").mkdir()
    np.savez(tmp_path / "frey" / "freyfaces.npz", images=np.zeros((1965, 20, 28), np.uint8))
    with pytest.raises(data.DataFileError, match=r"uint8 of shape \[1965, 20, 28\], wanted uint8 \[1965, 28, 20\]"):
        data.load("frey", tmp_path)
    np.savez(tmp_path / "frey" / "freyfaces.npz", faces=np.zeros((1965, 28, 20), np.uint8))
    with pytest.raises(data.DataFileError, match="has no array 'images'"):
        data.load("frey", tmp_path)


def test_frey_is_cut_in_blocks(tmp_path):
    (tmp_path / "frey").mkdir()
    frames = np.broadcast_to(np.arange(1965) % 256, (20, 28, 1965)).T.astype(np.uint8)
    np.savez(tmp_path / "frey" / "freyfaces.npz", images=frames)
    frey = data.load("frey", tmp_path)
    assert [len(p.x) for p in frey[:3]] == [1395, 190, 380]
    np.testing.assert_array_equal(frey.validation.x[:10], frames[70:80])
    np.testing.assert_array_equal(frey.test.x[20:40], frames[180:200])
    assert (frey.levels, frey.labels) == (255, None)


def test_static_mnist_from_text_and_from_the_packed_form(tmp_path, monkeypatch):
    """The same rows in both forms give the same dataset; text that is not 0 and 1 is refused."""
    source, rows = registry.SOURCES["mnist_static"], {"train": 50000, "valid": 10000, "test": 10000}
    bits = {part: np.random.default_rng(n).integers(0, 2, (n, 784), np.uint8) for part, n in rows.items()}
    texts, packed = tmp_path / "text" / "mnist_static", tmp_path / "packed" / "mnist_static"
    texts.mkdir(parents=True)
    packed.mkdir(parents=True)
    np.savez(packed / "binarized_mnist_bitpacked.npz", **{p: np.packbits(b, axis=1) for p, b in bits.items()})
    for file, x in zip(source.files, bits.values()):
        text = np.full((len(x), 1568), ord(" "), np.uint8)
        text[:, ::2], text[:, -1] = x + ord("0"), ord("\n")
        text.tofile(texts / file.name)
    unchecked = tuple(file._replace(sha256=None) for file in source.files)
    monkeypatch.setitem(registry.SOURCES, "mnist_static", source._replace(files=unchecked))
    for directory in (texts.parent, packed.parent):
        dataset = data.load("mnist_static", directory)
        for batch, x in zip(dataset[:3], bits.values()):
            np.testing.assert_array_equal(batch.x, x.reshape(-1, 28, 28))
        assert (dataset.levels, dataset.labels) == (None, None)
    with (texts / source.files[0].name).open("r+b") as stream:
        stream.write(b"7")
    with pytest.raises(data.DataFileError, match="something else than 0 and 1"):
        data.load("mnist_static", texts.parent)


def test_where_data_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEJAX_DATA", str(tmp_path / "here"))
    assert data.default_directory() == tmp_path / "here"
    with pytest.raises(data.MissingDataError, match=r"here/mnist_static .*cs.toronto.edu.*fetch mnist_static"):
        data.load("mnist_static")
    with pytest.raises(data.MissingDataError, match=r"it cannot be fetched .no checksum is published.: save its 1965"):
        data.load("frey")
    monkeypatch.setenv("VAEJAX_DATA", "")
    assert data.default_directory() == Path.home() / ".cache" / "vaejax"
    rows = {row.name: row for row in data.catalogue(tmp_path)}
    assert rows["digits"].found
    assert rows["digits"].path is None
    assert rows["frey"].path == tmp_path / "frey"
    assert [row.found for row in rows.values()] == [True, False, False, False, False, True]
    assert [row.fetchable for row in rows.values()] == [False, True, True, True, False, False]


@pytest.mark.slow
def test_the_real_files(data_dir):
    """Class counts and means as published; the packed static digits are the published text, by its SHA-256."""
    mnist = data.load("mnist", data_dir)
    counts = np.bincount(np.concatenate([mnist.labels["train"], mnist.labels["validation"]]))
    np.testing.assert_array_equal(counts, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    assert mnist.labels["train"][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    np.testing.assert_allclose(np.concatenate([mnist.train.x, mnist.validation.x]).mean() / 255, 0.1307, atol=5e-5)
    static = data.load("mnist_static", data_dir)
    for batch, file in zip(static[:3], registry.SOURCES["mnist_static"].files):
        text = np.full((len(batch.x), 1568), ord(" "), np.uint8)
        text[:, ::2], text[:, -1] = batch.x.reshape(-1, 784) + ord("0"), ord("\n")
        assert hashlib.sha256(text.tobytes()).hexdigest() == file.sha256
    frey = data.load("frey", data_dir)
    assert [len(p.x) for p in frey[:3]] == [1395, 190, 380]
    assert str(data.check("mnist_static", data_dir)).splitlines()[1] == "  each 28×28, uint8, binary from 0 to 1"
    responses = data.load(data_dir / "fraction" / "fraction20_responses.csv")
    assert responses.columns[:2] == ("I1", "I2")
    assert [p.x.shape for p in responses[:3]] == [(375, 20), (54, 20), (107, 20)]
