"""The named datasets: their files with sizes and checksums, where they come from, where they are looked for."""

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from vaejax.data.errors import DataFileError, MissingDataError, reading


class File(NamedTuple):
    """One file; size and SHA-256 are None where none is published."""

    name: str
    size: int | None = None
    sha256: str | None = None


class Source(NamedTuple):
    """Where a dataset's files come from.

    Attributes:
        files: what is fetched.
        instead: another form of the same data, used where it is there.
        mirrors: base addresses, tried in turn; none: it cannot be fetched.
        shape: what it is, in words.
        origin: whose it is and where.
        licence: as far as known.
    """

    files: tuple[File, ...]
    mirrors: tuple[str, ...]
    shape: str
    origin: str
    licence: str
    instead: tuple[File, ...] = ()


# SHA-256 and sizes as in tensorflow/datasets (url_checksums/{mnist,fashion_mnist,binarized_mnist}.txt).
SOURCES = {
    "digits": Source((), (), "1797 × 8×8, levels 0–16", "scikit-learn; UCI Optical Recognition", "CC BY 4.0"),
    "mnist": Source(
        (
            File(
                "train-images-idx3-ubyte.gz",
                9912422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            File(
                "train-labels-idx1-ubyte.gz", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
            ),
            File(
                "t10k-images-idx3-ubyte.gz", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
            ),
            File("t10k-labels-idx1-ubyte.gz", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        "60000 + 10000 × 28×28, levels 0–255, 10 classes",
        "LeCun, Cortes & Burges, yann.lecun.com/exdb/mnist",
        "CC BY-SA 3.0",
    ),
    "fashion_mnist": Source(
        (
            File(
                "train-images-idx3-ubyte.gz",
                26421880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            File(
                "train-labels-idx1-ubyte.gz", 29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
            ),
            File(
                "t10k-images-idx3-ubyte.gz", 4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
            ),
            File("t10k-labels-idx1-ubyte.gz", 5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        "60000 + 10000 × 28×28, levels 0–255, 10 classes",
        "Xiao, Rasul & Vollgraf 2017, github.com/zalandoresearch/fashion-mnist",
        "MIT",
    ),
    "mnist_static": Source(
        (
            File(
                "binarized_mnist_train.amat",
                78400000,
                "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
            ),
            File(
                "binarized_mnist_valid.amat",
                15680000,
                "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
            ),
            File(
                "binarized_mnist_test.amat",
                15680000,
                "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
            ),
        ),
        ("http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",),
        "50000 + 10000 + 10000 × 28×28, 0 and 1",
        "Salakhutdinov & Murray 2008; Larochelle & Murray 2011, cs.toronto.edu/~larocheh",
        "as MNIST",
        (File("binarized_mnist_bitpacked.npz"),),
    ),
    "frey": Source(
        (File("freyfaces.npz"),),
        (),
        "1965 × 28×20, levels 0–255",
        "Roweis, https://cs.nyu.edu/~roweis/data/frey_rawface.mat",
        "none stated",
    ),
    "sprites": Source(
        (), (), "4608 × 32×32, levels 0–255, 5 known factors", "vaejax.data.sprites, which draws them", "Apache-2.0"
    ),
}
_HOW = {
    "digits": "it comes with scikit-learn",
    "sprites": "it is drawn when it is loaded",
    "frey": "save its 1965 images as numpy.savez_compressed('freyfaces.npz', images=...), uint8 [1965, 28, 20] (ff.T.reshape(-1, 28, 20))",
}


def default_directory() -> Path:
    """Where data are looked for unless a call says otherwise: ``$VAEJAX_DATA``, else ``~/.cache/vaejax``.

    Examples:
        >>> import os
        >>> before = os.environ.pop("VAEJAX_DATA", None)
        >>> default_directory() == Path.home() / ".cache" / "vaejax"
        True
        >>> os.environ.update({} if before is None else {"VAEJAX_DATA": before})
    """
    return Path(os.environ.get("VAEJAX_DATA") or Path.home() / ".cache" / "vaejax").expanduser()


def folder(name: str, directory: Any = None) -> Path:
    """The folder of a named dataset."""
    return (default_directory() if directory is None else Path(directory).expanduser()) / name


def needs_files(name: str) -> bool:
    """Whether a named dataset is read from files, rather than coming with a package or being drawn.

    Examples:
        >>> needs_files("mnist"), needs_files("digits")
        (True, False)
    """
    return bool(SOURCES[name].files)


def how_to_get(name: str) -> str:
    """What to do to have a dataset's files, for messages and listings."""
    if SOURCES[name].mirrors:
        return f"run `vaejax data fetch {name}` or vaejax.data.fetch({name!r})"
    why = " (no checksum is published)" if needs_files(name) else ""
    return f"it cannot be fetched{why}: {_HOW[name]}"


def present(name: str, files: tuple[File, ...], directory: Any = None) -> bool:
    """Whether all of ``files`` are there, with their sizes; checksums are left to `verified`."""
    paths = [(folder(name, directory) / file.name, file.size) for file in files]
    return all(path.is_file() and size in (None, path.stat().st_size) for path, size in paths)


def verified(name: str, file: File, directory: Any = None) -> Path:
    """The path of a file that is there and is what it should be.

    Raises:
        MissingDataError: it is not there.
        DataFileError: its size or its SHA-256 is not the published one.
    """
    path = folder(name, directory) / file.name
    if not path.exists():
        raise MissingDataError(
            f"{name} needs {file.name}, which is not in {path.parent} (directory=, else VAEJAX_DATA, else ~/.cache/vaejax); it comes "
            f"from {SOURCES[name].origin}: {how_to_get(name)}"
        )
    with reading(path, "a file"):
        if defect := difference(path, file):
            raise DataFileError(f"{path} {defect}; delete it and fetch it again ({how_to_get(name)})")
    return path


def difference(path: Path, file: File) -> str | None:
    """What tells the file at ``path`` from the published one, or None."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"has {size} bytes, the published file {file.size}"
    if file.sha256 is not None:
        with path.open("rb") as stream:
            came = hashlib.file_digest(stream, "sha256").hexdigest()
        if came != file.sha256:
            return f"has SHA-256 {came[:12]}…, the published file {file.sha256[:12]}…"
    return None
