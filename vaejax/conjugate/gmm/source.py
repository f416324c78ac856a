"""Rows that are read in chunks, again and again: from an array, a memory map, or a function that begins to read anew."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.conjugate.gmm import starts
from vaejax.conjugate.gmm.density import Gmm
from vaejax.conjugate.gmm.structures import Structure, structure
from vaejax.conjugate.table import no_constant_column
from vaejax.types import Key, default_float

Source = Any  # an array or memory map [n, d], or a function that begins to read anew and gives arrays [m, d]


class Stream(NamedTuple):
    """A source and what one pass over it has found.

    Attributes:
        source: what the user gave.
        size: rows of a chunk.
        kind: the covariances.
        centre: ``[d]`` of the sample: all is computed about it.
        sample: ``[m, d]`` rows, centred, to begin with and to begin anew at.
        parts: of a component that begins anew.
        num_components: K.
    """

    source: Source
    size: int
    kind: Structure
    centre: np.ndarray
    sample: np.ndarray
    parts: starts.Spare
    num_components: int

    def chunks(self, *, strided: bool = False) -> Iterator[np.ndarray]:
        """Centred rows, ``size`` at a time."""
        return (chunk - self.centre for chunk in chunks_of(self.source, self.size, strided=strided))

    def outside(self, params: Gmm) -> Gmm:
        """In the data's own place."""
        return params._replace(mean=params.mean + self.centre[None])


def opened(
    key: Key, source: Source, num_components: int, covariance: str | Structure, size: int, sample_size: int
) -> Stream:
    """A sample of the rows by reservoir (Vitter 1985), and whether every column varies."""
    checks.positive_int(num_components, "num_components")
    checks.positive_int(sample_size, "sample_size")
    least = max(2, num_components)
    if sample_size < least:
        raise ValueError(
            f"sample_size must be at least {least} for {num_components} components to begin at its rows, got {sample_size}"
        )
    kind = structure(covariance)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    kept: Any = None
    low = high = seen = 0
    for chunk in chunks_of(source, size):
        if kept is None:
            kept, low, high = chunk[:0].copy(), chunk[0], chunk[0]
        low, high = np.minimum(low, chunk.min(0)), np.maximum(high, chunk.max(0))
        room = max(sample_size - len(kept), 0)
        kept, rest = np.concatenate([kept, chunk[:room]]), chunk[room:]
        place = rng.integers(0, seen + min(room, len(chunk)) + 1 + np.arange(len(rest)))
        kept[place[place < sample_size]] = rest[place < sample_size]
        seen += len(chunk)
    if seen < least:
        raise ValueError(
            f"a mixture of {num_components} Gaussians needs at least {least} rows, got {seen}; use more data"
        )
    no_constant_column(jnp.stack([low, high]), "a Gaussian mixture")
    centre = kept.mean(0)
    kept = kept - centre
    parts = starts.spare(
        jnp.asarray(kept), jnp.ones(len(kept), kept.dtype), num_components, kind, jnp.asarray(seen, kept.dtype)
    )
    if not np.isfinite(parts.covariance).all():
        raise ValueError(f"squares of the source overflow {kept.dtype}; scale the columns, or fit float64")
    return Stream(source, size, kind, centre, kept, parts, num_components)


def chunks_of(source: Source, size: int, *, strided: bool = False) -> Iterator[np.ndarray]:
    """Checked arrays of ``size`` rows, the last one fewer; from an array ``strided`` takes every (n / size)-th row."""
    whole = not callable(source)
    if whole and getattr(source, "ndim", 0) != 2:
        came = f"shape {list(np.shape(source))}" if hasattr(source, "shape") else type(source).__name__
        raise ValueError(f"the source must be an array [n, d], or a function that gives arrays [m, d] anew, got {came}")
    count = -(-len(source) // size) if whole else 0
    parts = (
        (source[i::count] if strided else source[i * size : (i + 1) * size] for i in range(count))
        if whole
        else source()
    )
    waiting: list[np.ndarray] = []
    held, width, found = 0, None, False
    for part in parts:
        array = np.asarray(part, default_float())
        if array.ndim != 2 or (width is not None and array.shape[1] != width):
            wanted = "[m, d]" if width is None else f"[m, {width}]"
            raise ValueError(f"the source must give arrays {wanted}, got shape {list(array.shape)}")
        checks.finite(array, "a chunk of the source", remedy="remove those rows")
        width, found = array.shape[1], True
        waiting.append(array)
        held += len(array)
        while held >= size:
            rows = np.concatenate(waiting)
            yield rows[:size]
            waiting, held = [rows[size:]], held - size
    if held:
        yield np.concatenate(waiting)
    if not found:
        raise ValueError(
            "the source gives no rows; a function must begin to read anew at each call (return a fresh iterator)"
        )
