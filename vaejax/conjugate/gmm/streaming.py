"""Gaussian mixtures of data larger than memory: EM over chunks, exact, and stepwise EM, which updates after each."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from vaejax import checks
from vaejax.conjugate.em import FitResult
from vaejax.conjugate.gmm import starts
from vaejax.conjugate.gmm.density import Gmm, whitener
from vaejax.conjugate.gmm.fit import fit_em, maximise
from vaejax.conjugate.gmm.moments import Moments, expect, in_chunks, merge, scaled
from vaejax.conjugate.gmm.structures import Structure, structure
from vaejax.types import Array, Key, default_float

Source = Any  # an array or memory map [n, d], or a function that begins to read anew and gives arrays [m, d]
OnStep = Callable[[Gmm, float], None]


def fit_chunked(
    key: Key,
    source: Source,
    num_components: int,
    *,
    covariance: str | Structure = "full",
    chunk_size: int = 65_536,
    max_steps: int = 50,
    tolerance: float = 1e-6,
    sample_size: int = 10_000,
    num_starts: int = 10,
    start: Gmm | None = None,
    on_step: OnStep | None = None,
    progress: bool | None = None,
) -> FitResult:
    """Exact EM that holds one chunk of the data at a time: each step is a pass through the source.

    Begins where `fit_em` ends on a sample of the rows. What is computed is what `fit_em` computes on all of them.

    Args:
        key: typed key, of the sample and its starts.
        source: ``[n, d]`` array or `numpy.memmap`, or a function without arguments that gives arrays ``[m, d]`` anew at each call.
        num_components: K.
        covariance: as for `fit_em`.
        chunk_size: rows at a time.
        max_steps: passes, at most.
        tolerance: relative gain of the log-likelihood below which it ends.
        sample_size: rows to begin with, drawn by reservoir in one pass.
        num_starts: of the fit to the sample.
        start: the `Gmm` to begin with instead, such as the one that ``on_step`` kept last.
        on_step: called with the parameters and the log-likelihood of those before after each pass, to save them.
        progress: a bar; None shows it on a terminal only.

    Returns:
        `FitResult` with `Gmm`. A component that collapses begins anew at a row of the sample, as in `fit_em`.

    Raises:
        ValueError: NaN, ragged chunks, fewer rows than components.

    Examples:
        >>> import jax, numpy as np
        >>> rows = np.random.default_rng(0).normal(size=(3000, 2)) + np.repeat([[0.0], [9.0]], 1500, axis=0)
        >>> found = fit_chunked(jax.random.key(0), rows, 2, chunk_size=500, max_steps=5)
        >>> bool(abs(found.params.weight - 0.5).max() < 0.01)
        True
    """
    kind, sample = _opened(key, source, num_components, covariance, chunk_size, sample_size)
    checks.positive_int(max_steps, "max_steps")
    params = _begin(key, sample, num_components, kind, num_starts, start)
    parts = _spare(sample, num_components, kind)
    trace, reseeded, converged = np.full(max_steps + 1, np.nan), np.zeros(max_steps, int), False
    steps = 0
    with tqdm(total=max_steps, unit="pass", desc="EM", disable=None if progress is None else not progress) as bar:
        while steps < max_steps and not converged:
            moments, evidence = _pass(params, source, chunk_size, kind)
            trace[steps] = evidence
            anew = steps == 0 or reseeded[steps - 1]
            converged = not anew and evidence - trace[steps - 1] <= tolerance * abs(evidence)
            params, count = _mended(jax.random.fold_in(key, steps), maximise(moments, kind, None), parts)
            reseeded[steps], converged = count, converged and not count
            steps += 1
            if on_step is not None:
                on_step(params, evidence)
            bar.set_postfix_str(f"{evidence:.6g} nats", refresh=False)
            bar.update()
    trace[steps] = _pass(params, source, chunk_size, kind)[1]
    return _result(params, trace, steps, converged, reseeded)


def fit_stepwise(
    key: Key,
    source: Source,
    num_components: int,
    *,
    covariance: str | Structure = "full",
    batch_size: int = 4096,
    num_epochs: int = 1,
    power: float = 0.7,
    sample_size: int = 10_000,
    num_starts: int = 10,
    start: Gmm | None = None,
    on_step: OnStep | None = None,
    progress: bool | None = None,
) -> FitResult:
    """Stepwise (online) EM: after each batch the moments move by η_t = (t + 2)^(−power) towards the batch's, and the M-step follows.

    One pass often does what ten of exact EM do; a few of `fit_chunked` from its end settle what noise is left. Rows should come in no
    particular order: an array is read in batches of every (n / batch)-th row.

    Args:
        key: typed key, of the sample and its starts.
        source: as for `fit_chunked`; from a function the batches are the arrays it gives.
        num_components: K.
        covariance: as for `fit_em`.
        batch_size: rows of a batch.
        num_epochs: passes.
        power: in (0.5, 1]: forgetting is slower near 1.
        sample_size: rows to begin with.
        num_starts: of the fit to the sample.
        start: the `Gmm` to begin with instead.
        on_step: called with the parameters and the batch's log-likelihood before its update.
        progress: a bar; None shows it on a terminal only.

    Returns:
        `FitResult` with `Gmm`; ``trace`` holds the log-likelihood of each batch before its update, scaled to all rows: it is noisy and may
        fall; its last entry is the exact one of all rows.

    Source:
        Cappé & Moulines 2009; Liang & Klein 2009 for the step sizes.

    Examples:
        >>> import jax, numpy as np
        >>> rows = np.random.default_rng(0).normal(size=(3000, 2)) + np.repeat([[0.0], [9.0]], 1500, axis=0)
        >>> found = fit_stepwise(jax.random.key(0), rows, 2, batch_size=300)
        >>> bool(abs(found.params.weight - 0.5).max() < 0.05)
        True
    """
    checks.real(power, "power", minimum=0.5, maximum=1.0, open_minimum=True)
    checks.positive_int(num_epochs, "num_epochs")
    kind, sample = _opened(key, source, num_components, covariance, batch_size, sample_size)
    params = _begin(key, sample, num_components, kind, num_starts, start)
    parts = _spare(sample, num_components, kind)
    moments, _ = _unit(params, sample, kind, batch_size)
    trace: list[float] = []
    reseeded: list[int] = []
    rows = 0
    with tqdm(unit="batch", desc="stepwise EM", disable=None if progress is None else not progress) as bar:
        for epoch in range(num_epochs):
            for batch in _chunks(source, batch_size, strided=True):
                found, evidence = _unit(params, batch, kind, batch_size)
                rows += len(batch) * (epoch == 0)
                rate = (len(trace) + 2) ** -power
                moments = merge(scaled(moments, 1 - rate), scaled(found, rate))
                params, count = _mended(jax.random.fold_in(key, len(trace)), maximise(moments, kind, None), parts)
                if count:
                    moments, _ = _unit(params, sample, kind, batch_size)
                trace.append(float(evidence))
                reseeded.append(count)
                if on_step is not None:
                    on_step(params, float(evidence) * len(batch))
                bar.update()
    final = _pass(params, source, batch_size, kind)[1]
    return _result(params, np.array([*(rows * np.array(trace)), final]), len(trace), True, np.array(reseeded))


def _pass(params: Gmm, source: Source, chunk_size: int, kind: Structure) -> tuple[Moments, float]:
    """Moments of all rows, chunk by chunk, and their log-likelihood, which the host sums in float64."""
    total: Moments | None = None
    evidence = 0.0
    for chunk in _chunks(source, chunk_size):
        found, part = _moments(params, *_padded(chunk, chunk_size), kind)
        total = found if total is None else merge(total, found)
        evidence += float(part)
    assert total is not None
    return total, evidence


def _unit(params: Gmm, batch: np.ndarray, kind: Structure, size: int) -> tuple[Moments, Array]:
    """Moments and log-likelihood of a batch, per row."""
    found = [_moments(params, *_padded(part, size), kind) for part in _chunks(batch, size)]
    moments, evidence = found[0]
    for more, part in found[1:]:
        moments, evidence = merge(moments, more), evidence + part
    return scaled(moments, 1 / len(batch)), evidence / len(batch)


@functools.partial(jax.jit, static_argnums=3)
def _moments(params: Gmm, x: Array, weight: Array, kind: Structure) -> tuple[Moments, Array]:
    return expect(whitener(params), in_chunks(x, weight, len(params.weight)), kind.diagonal)


def _padded(chunk: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of weight 0 up to ``size``: one shape compiles once."""
    extra = max(size - len(chunk), 0)
    weight = np.ones(len(chunk), chunk.dtype)
    return np.pad(chunk, ((0, extra), (0, 0))), np.pad(weight, (0, extra))


def _chunks(source: Source, size: int, *, strided: bool = False) -> Iterator[np.ndarray]:
    """Checked arrays of at most ``size`` rows."""
    if callable(source):
        parts: Iterable = source()
    elif strided:
        count = -(-len(source) // size)
        parts = (source[i::count] for i in range(count))
    else:
        parts = (source,)
    width, found = None, False
    for part in parts:
        array = np.asarray(part) if callable(source) or strided else part
        if getattr(array, "ndim", 0) != 2 or (width is not None and array.shape[1] != width):
            wanted = "[m, d]" if width is None else f"[m, {width}]"
            raise ValueError(f"the source must give arrays {wanted}, got shape {list(np.shape(array))}")
        width = array.shape[1]
        for begin in range(0, len(array), size):
            found = True
            chunk = np.asarray(array[begin : begin + size], default_float())
            checks.finite(chunk, "a chunk of the source")
            yield chunk
    if not found:
        raise ValueError(
            "the source gives no rows; a function must begin to read anew at each call (return a fresh iterator)"
        )


def _opened(
    key: Key, source: Source, num_components: int, covariance: str | Structure, size: int, sample_size: int
) -> tuple[Structure, np.ndarray]:
    """The structure, and a sample of the rows by reservoir (Vitter 1985)."""
    checks.key(key)
    checks.positive_int(num_components, "num_components")
    checks.positive_int(size, "chunk_size")
    checks.positive_int(sample_size, "sample_size")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    kept: np.ndarray | None = None
    seen = 0
    for chunk in _chunks(source, size):
        kept = chunk[:0].copy() if kept is None else kept
        room = max(sample_size - len(kept), 0)
        kept, rest = np.concatenate([kept, chunk[:room]]), chunk[room:]
        place = rng.integers(0, seen + min(room, len(chunk)) + 1 + np.arange(len(rest)))
        taken = place < sample_size
        kept[place[taken]] = rest[taken]
        seen += len(chunk)
    assert kept is not None
    return structure(covariance), kept


def _begin(key: Key, sample: np.ndarray, count: int, kind: Structure, num_starts: int, start: Gmm | None) -> Gmm:
    if start is not None:
        fit_em(key, sample, count, covariance=kind, start=start, max_steps=1)  # its checks
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, default_float()), start)
    return fit_em(key, sample, count, covariance=kind, num_starts=num_starts).params


def _spare(sample: np.ndarray, count: int, kind: Structure) -> starts.Spare:
    return starts.spare(jnp.asarray(sample), jnp.ones(len(sample), default_float()), count, kind)


def _mended(key: Key, params: Gmm, parts: starts.Spare) -> tuple[Gmm, int]:
    bad = starts.collapsed(params, parts.variance)
    count = int(jnp.sum(bad))
    return (starts.reseed(key, params, bad, parts) if count else params), count


def _result(params: Gmm, trace: np.ndarray, steps: int, converged: bool, reseeded: np.ndarray) -> FitResult:
    numbers: tuple[Any, ...] = (trace, np.int32(steps), np.bool_(converged), reseeded.astype(np.int32), np.int32(0))
    return FitResult(params, *numbers)
