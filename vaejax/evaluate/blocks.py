"""Long evaluations a block of examples at a time: under a progress bar, and kept on disk so that what was done is not done again."""

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from vaejax import checks
from vaejax.types import Batch, Key

Columns = dict[str, np.ndarray]
_SECONDS = "seconds spent"


def in_blocks(
    function: Callable[[Key, Batch], dict[str, Any]],
    key: Key,
    batch: Any,
    *,
    block_size: int = 1000,
    directory: str | os.PathLike | None = None,
    settings: Any = None,
    progress: bool | None = None,
    description: str = "evaluating",
) -> Columns:
    """``function(key, block)`` for each block of examples, its arrays joined along their leading axis.

    Args:
        function: gives a dictionary of arrays that lead with the block's examples. The block has
            no weights: take those of the whole batch for means over the results.
        key: typed key; block i has ``fold_in(key, i)``.
        batch: a `Batch` or an array, leading with the examples.
        block_size: examples in a block.
        directory: where to keep each block as it is done; a later call with the same key, data and settings takes what is there. None
            keeps nothing. Files are whole or absent; one process a directory.
        settings: any pytree that says what else the numbers depend on (params among them); needed with ``directory``.
        progress: a bar; None shows it on a terminal only.
        description: of the bar.

    Raises:
        ValueError: a directory of another evaluation, or with a damaged file; a directory without settings.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> in_blocks(lambda key, block: {"sum": block.x.sum(1)}, jax.random.key(0), jnp.ones((5, 3)), block_size=2)["sum"].tolist()
        [3.0, 3.0, 3.0, 3.0, 3.0]
    """
    checks.key(key)
    batch = checks.batch(batch, "batch")
    checks.positive_int(block_size, "block_size")
    total = len(batch.x)
    folder = None if directory is None else _opened(Path(directory), key, batch, block_size, settings)
    # A block may hold examples of weight 0 alone, which is refused as a batch with weights.
    # `checks.batch` gave these examples the content of one of positive weight.
    examples = batch._replace(weight=None)
    parts = []
    disable = None if progress is None else not progress
    with tqdm(total=total, unit="example", desc=description, disable=disable, dynamic_ncols=True) as bar:
        for number, first in enumerate(range(0, total, block_size)):
            rows = slice(first, first + block_size)
            block = jax.tree.map(lambda leaf: leaf[rows], examples)  # noqa: B023
            file = None if folder is None else folder / f"block-{number:05d}.npz"
            parts.append(_block(function, jax.random.fold_in(key, number), block, file))
            bar.update(min(block_size, total - first))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _block(function: Callable[[Key, Batch], dict[str, Any]], key: Key, block: Batch, file: Path | None) -> Columns:
    if file is not None and file.exists():
        try:
            # Opened here: NumPy leaves a file that is no archive open.
            with open(file, "rb") as stream, np.load(stream) as kept:
                return {name: kept[name] for name in kept.files if name != _SECONDS}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{file} is damaged ({error}); delete it, and only its block is evaluated again"
            ) from error
    began = time.perf_counter()
    found = {name: np.asarray(value) for name, value in function(key, block).items() if value is not None}
    if file is not None:
        partial = file.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, **found, **{_SECONDS: time.perf_counter() - began})  # type: ignore[arg-type]
        partial.replace(file)
    return found


def seconds_spent(directory: Path) -> float:
    """How long the blocks kept in a directory took, whichever call made them."""
    total = 0.0
    for file in sorted(directory.glob("block-*.npz")):
        with np.load(file) as kept:
            total += float(kept[_SECONDS]) if _SECONDS in kept.files else 0.0
    return total


def _opened(directory: Path, key: Key, batch: Batch, block_size: int, settings: Any) -> Path:
    """The directory, made or recognised."""
    if settings is None:
        raise ValueError(
            "directory= needs settings=: the params and options that the numbers depend on, by which it is recognised"
        )
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"directory= names {directory}, which is a file; name a directory")
    directory.mkdir(parents=True, exist_ok=True)
    about = directory / "about.json"
    own = {"examples": len(batch.x), "block_size": block_size, "sha256": digest(key, batch, settings)}
    if not about.exists():
        if any(directory.glob("block-*.npz")):
            raise ValueError(
                f"{directory} holds blocks but no {about.name} that says of what; use another directory, or delete this one"
            )
        partial = about.with_suffix(f".{os.getpid()}.json")
        partial.write_text(json.dumps(own))
        partial.replace(about)
    try:
        found = json.loads(about.read_text())
    except ValueError as error:
        raise ValueError(f"{about} is damaged; use another directory, or delete this one") from error
    if found != own:
        raise ValueError(
            f"{directory} holds another evaluation (other parameters, data, key or settings: {found} where {own} was wanted); use another "
            "directory, or delete this one"
        )
    return directory


def digest(*trees: Any) -> str:
    """SHA-256 of pytrees of arrays, numbers and strings, paths, dtypes and shapes included."""
    total = hashlib.sha256()
    for where, leaf in jax.tree_util.tree_leaves_with_path(trees):
        total.update(jax.tree_util.keystr(where).encode())
        if isinstance(leaf, str):
            total.update(f"str {len(leaf)} {leaf}".encode())
            continue
        typed = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if typed else leaf)
        if array.dtype == object:
            raise TypeError(
                f"settings{jax.tree_util.keystr(where)} is {type(leaf).__name__}; settings must be arrays, numbers and strings"
            )
        total.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
