"""Explicit downloads: resumed where they broke off, checked before they take their name."""

import http.client
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from vaejax import checks
from vaejax.data.errors import DataFileError, one_line
from vaejax.data.registry import SOURCES, File, difference, folder, how_to_get

_TIMEOUT = 30.0
_CHUNK = 1 << 16


class _Failed(Exception):
    """One attempt at one address that came to nothing, and why."""


def fetch(name: str, directory: Any = None, *, progress: bool | None = None, base_url: str | None = None) -> list[Path]:
    """Downloads the files of a named dataset into ``directory/name``; files that are there and whole are left as they are.

    Each comes in as ``<file>.part``, is compared with the published size and SHA-256, and only then takes its name. What a broken
    or interrupted download leaves in ``.part`` is where the next call goes on.

    Args:
        name: the dataset.
        directory: None: `vaejax.data.default_directory`.
        progress: True for a bar, False for none, None for one on a terminal only.
        base_url: an http(s) address that has the files, instead of the known ones.

    Returns:
        The paths of all its files.

    Raises:
        ValueError: a dataset that cannot be fetched, an address that is not http(s).
        DataFileError: no address gave the file, and why each did not.
        OSError: the folder cannot be written to, or the disk is too full.
    """
    source = SOURCES[checks.one_of(name, "dataset", SOURCES)]
    if not source.mirrors:
        raise ValueError(f"{name} comes from {source.origin}; {how_to_get(name)}")
    if base_url is not None and not str(base_url).startswith(("http://", "https://")):
        raise ValueError(f"base_url must begin with http:// or https://, got {base_url!r}")
    mirrors = source.mirrors if base_url is None else (str(base_url).rstrip("/") + "/",)
    target = folder(name, directory)
    try:
        target.mkdir(parents=True, exist_ok=True)
        wanting = [file for file in source.files if not _whole(target / file.name, file)]
        _check_space(target, wanting)
        for file in wanting:
            _from_any([mirror + file.name for mirror in mirrors], target / file.name, file, progress)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(
            f"cannot write into {target}: {error.strerror}; make room there or choose a folder by directory= or VAEJAX_DATA"
        ) from error
    return [target / file.name for file in source.files]


def _whole(path: Path, file: File) -> bool:
    return path.exists() and difference(path, file) is None


def _check_space(target: Path, wanting: list[File]) -> None:
    there = sum(part.stat().st_size for file in wanting if (part := _part(target / file.name)).exists())
    needed, free = sum(file.size or 0 for file in wanting) - there, shutil.disk_usage(target).free
    if needed > free:
        raise OSError(
            f"{target} has {free} bytes free, {needed} are needed; make room, or choose a folder by directory="
        )


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _from_any(urls: list[str], path: Path, file: File, progress: bool | None) -> None:
    failures = []
    for url in urls:
        try:
            return _from_one(url, path, file, progress)
        except _Failed as error:
            failures.append(f"{url}: {error}")
    raise DataFileError(
        f"could not fetch {file.name} ({'; '.join(failures)}); try again (what has come is kept and gone on from), or put the file "
        f"into {path.parent} yourself"
    )


def _from_one(url: str, path: Path, file: File, progress: bool | None) -> None:
    part, problem, whole = _part(path), None, file.size or 0
    for _ in range(2):
        if not part.exists() or part.stat().st_size < whole:
            _receive(url, part, file, progress)
        if part.stat().st_size < whole:
            raise _Failed(f"the connection ended after {part.stat().st_size} of {whole} bytes")
        problem = difference(part, file)
        if problem is None:
            os.replace(part, path)
            return
        # Whatever it was that had been begun, it was not this file: once more from the start.
        part.unlink()
    raise _Failed(f"what it sends {problem}")


def _receive(url: str, part: Path, file: File, progress: bool | None) -> None:
    """Appends what is missing to ``part``, or begins it anew where the server cannot go on."""
    from tqdm import tqdm

    offset = part.stat().st_size if part.exists() else 0
    response = _open(url, offset)
    if response is None:
        part.unlink()
        return _receive(url, part, file, progress)
    with response:
        received = offset if response.status == 206 else 0
        hidden = None if progress is None else not progress
        bar = tqdm(total=file.size, initial=received, unit="B", unit_scale=True, desc=file.name, disable=hidden)
        with bar, part.open("ab" if received else "wb") as stream:
            # One chunk too many is enough to see that it is another file.
            while received <= (file.size or 0) and (chunk := _chunk(response)):
                stream.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))


def _open(url: str, offset: int) -> Any:
    """The response from ``offset`` on, or whole; None if the server answers the wish to go on with something else."""
    request = urllib.request.Request(url, headers={"User-Agent": "vaejax"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            return None
        raise _Failed(f"HTTP {error.code} {one_line(error.reason)}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Failed(_reason(error)) from error
    if response.status == 206 and not str(response.headers.get("Content-Range")).startswith(f"bytes {offset}-"):
        response.close()
        if offset:
            return None
        raise _Failed("it sends a part of the file though the whole was asked for")
    return response


def _chunk(response: Any) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Failed(f"the connection broke: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return one_line(getattr(error, "reason", error)) or type(error).__name__
