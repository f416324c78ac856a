"""Files that survive: written aside and renamed into place, sealed with checksums, looked at before they are trusted."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

SEAL = "seal.json"
_FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or no checkpoint of vaejax at all."""


def write_text(path: Path, text: str) -> None:
    """Replaces a file at once: a reader, or a crash, meets the old content or the new, never half."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(aside, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def seal(directory: Path, notes: dict[str, Any]) -> None:
    """Writes down the size and SHA-256 of every file of a directory, with ``notes`` (anything JSON), and flushes all to disk."""
    files = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        with open(path, "rb") as stream:
            files[path.relative_to(directory).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
    content = {"format": _FORMAT, "files": files, "notes": notes}
    write_text(directory / SEAL, json.dumps({**content, "sha256": _digest(content)}))


def unseal(directory: Path) -> dict[str, Any]:
    """The notes of a sealed directory, after every file of it was compared with its checksum.

    Raises:
        CheckpointError: what is damaged, or that nothing was sealed here.
    """
    path = directory / SEAL
    if not path.is_file():
        raise CheckpointError(
            f"{directory} holds no {SEAL}: it is no checkpoint of vaejax, or one whose files were lost"
        )
    try:
        content = json.loads(path.read_bytes())
        claimed = content.pop("sha256")
        whole = claimed == _digest(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise CheckpointError(f"{path} is damaged")
    if content["format"] != _FORMAT:
        raise CheckpointError(
            f"{directory} has checkpoint format {content['format']}, this vaejax reads {_FORMAT}; use the version that wrote it"
        )
    for name, digest in content["files"].items():
        try:
            with open(directory / name, "rb") as stream:
                same = hashlib.file_digest(stream, "sha256").hexdigest() == digest
        except OSError as error:
            raise CheckpointError(f"{directory / name} cannot be read ({error.strerror})") from error
        if not same:
            raise CheckpointError(f"{directory / name} is damaged: its checksum is not the one written down")
    return content["notes"]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A directory to fill, which takes its place as ``target`` only when the block ends well."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        os.replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Removes what writers that were killed left behind."""
    for path in directory.glob(".*.part"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def make_writable(directory: Path, num_bytes: int) -> None:
    """Makes a directory, and raises unless it can be written and its disk has room for ``num_bytes``.

    Raises:
        OSError: which directory, and what is wrong with it.
    """
    probe = directory / ".probe"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"vaejax")
        probe.unlink()
    except OSError as error:
        raise type(error)(
            error.errno, f"the run directory cannot be written ({error.strerror}); choose another", str(directory)
        ) from error
    free = shutil.disk_usage(directory).free
    if free < num_bytes:
        raise OSError(
            f"the disk of {directory} has {_megabytes(free)} left, and the checkpoints of this run need {_megabytes(num_bytes)}; "
            "make room or choose another directory"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds a directory for one process; the system lets go of it however that process ends.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    with open(directory / ".lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"another process is training in {directory}; wait for it, or choose another"
            ) from error
        yield


def fingerprint(tree: Any) -> str:
    """A checksum of every array of a tree, with its place, shape and type."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        host = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {host.shape} {host.dtype}".encode())
        digest.update(host.view(np.uint8).data if host.size and host.ndim else host.tobytes())
    return digest.hexdigest()
