"""Gaussian mixtures of data larger than memory: EM over chunks, exact, and stepwise EM, which updates after each."""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from vaejax import checks
from vaejax.conjugate.em import FitResult
from vaejax.conjugate.gmm import starts
from vaejax.conjugate.gmm.density import Gmm, whitener
from vaejax.conjugate.gmm.fit import FEWER, Starved, finite_end, fit_em, maximise, report
from vaejax.conjugate.gmm.moments import Moments, expect, in_chunks, merge, scaled
from vaejax.conjugate.gmm.source import Source, Stream, opened
from vaejax.conjugate.gmm.structures import Structure
from vaejax.conjugate.table import table
from vaejax.types import Array, Key

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
    max_reseeds: int = 10,
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
        max_reseeds: how many collapsed components may begin anew, at rows of the sample; then it is an error.
        on_step: called with the parameters and the log-likelihood of those before after each pass, to save them.
        progress: a bar; None shows it on a terminal only.

    Returns:
        `FitResult` with `Gmm`.

    Raises:
        ValueError: NaN, ragged chunks, fewer rows than components, constant columns, more components collapsed than may begin anew.

    Warns:
        Starved: components collapsed and began anew.

    Examples:
        >>> import jax, numpy as np
        >>> rows = np.random.default_rng(0).normal(size=(3000, 2)) + np.repeat([[0.0], [9.0]], 1500, axis=0)
        >>> found = fit_chunked(jax.random.key(0), rows, 2, chunk_size=500, max_steps=5)
        >>> bool(abs(found.params.weight - 0.5).max() < 0.01)
        True
    """
    checks.positive_int(chunk_size, "chunk_size")
    checks.positive_int(max_steps, "max_steps")
    checks.real(tolerance, "tolerance", minimum=0.0)
    checks.key(key)
    sampling, starting, mending = jax.random.split(key, 3)
    stream = opened(sampling, source, num_components, covariance, chunk_size, sample_size)
    params = _begin(starting, stream, num_starts, start)
    trace, reseeded, converged = np.full(max_steps + 1, np.nan), np.zeros(max_steps, int), False
    steps = 0
    with tqdm(total=max_steps, unit="pass", desc="EM", disable=None if progress is None else not progress) as bar:
        while steps < max_steps and not converged:
            moments, evidence = _pass(params, stream)
            trace[steps] = evidence
            anew = steps == 0 or reseeded[steps - 1]
            converged = not anew and evidence - trace[steps - 1] <= tolerance * abs(evidence)
            better, allowed = maximise(moments, stream.kind, None), max_reseeds - int(reseeded.sum())
            params, reseeded[steps] = _mended(jax.random.fold_in(mending, steps), better, stream, allowed)
            converged = converged and not reseeded[steps]
            steps += 1
            if on_step is not None:
                on_step(stream.outside(params), evidence)
            bar.set_postfix_str(f"{evidence:.6g} nats", refresh=False)
            bar.update()
    trace[steps] = _pass(params, stream)[1]
    return _result(stream, params, trace, steps, converged, reseeded)


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
    max_reseeds: int = 10,
    on_step: OnStep | None = None,
    progress: bool | None = None,
) -> FitResult:
    """Stepwise (online) EM: after each batch the moments move by η_t = (t + 2)^(−power) towards the batch's, and the M-step follows.

    One pass often does what ten of exact EM do; a few of `fit_chunked` from its end settle what noise is left. Rows should come in no
    particular order: an array is read in batches of every (n / batch)-th row.

    Args:
        key: typed key, of the sample and its starts.
        source: as for `fit_chunked`; rows from a function are put together or apart to make batches.
        num_components: K.
        covariance: as for `fit_em`.
        batch_size: rows of a batch.
        num_epochs: passes.
        power: in (0.5, 1]: forgetting is slower near 1.
        sample_size: rows to begin with.
        num_starts: of the fit to the sample.
        start: the `Gmm` to begin with instead.
        max_reseeds: how many collapsed components may begin anew, at rows of the sample; then it is an error.
        on_step: called with the parameters and the batch's log-likelihood before its update.
        progress: a bar; None shows it on a terminal only.

    Returns:
        `FitResult` with `Gmm`; ``trace`` holds the log-likelihood of each batch before its update, scaled to all rows: it is noisy and may
        fall; its last entry is the exact one of all rows. ``converged`` is False: whether more passes would gain is not tested.

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
    checks.positive_int(batch_size, "batch_size")
    checks.positive_int(num_epochs, "num_epochs")
    checks.key(key)
    sampling, starting, mending = jax.random.split(key, 3)
    stream = opened(sampling, source, num_components, covariance, batch_size, sample_size)
    params = _begin(starting, stream, num_starts, start)
    first = stream._replace(size=len(stream.sample))
    moments, _ = _of_batch(params, stream.sample, first)
    trace: list[float] = []
    reseeded: list[int] = []
    rows = 0
    with tqdm(unit="batch", desc="stepwise EM", disable=None if progress is None else not progress) as bar:
        for epoch in range(num_epochs):
            for batch in stream.chunks(strided=True):
                found, evidence = _of_batch(params, batch, stream)
                rows += len(batch) * (epoch == 0)
                # A batch that is cut short moves them less.
                rate = (len(trace) + 2) ** -power * len(batch) / batch_size
                moments = merge(scaled(moments, 1 - rate), scaled(found, rate))
                better, allowed = maximise(moments, stream.kind, None), max_reseeds - sum(reseeded)
                params, count = _mended(jax.random.fold_in(mending, len(trace)), better, stream, allowed)
                if count:
                    moments, _ = _of_batch(params, stream.sample, first)
                trace.append(evidence)
                reseeded.append(count)
                if on_step is not None:
                    on_step(stream.outside(params), evidence * len(batch))
                bar.update()
    final = _pass(params, stream)[1]
    return _result(stream, params, np.array([*(rows * np.array(trace)), final]), len(trace), False, np.array(reseeded))


def _begin(key: Key, stream: Stream, num_starts: int, start: Gmm | None) -> Gmm:
    """About the stream's centre. In a sample a column may never vary: a pseudo-observation for each component bears that."""
    if start is None:
        with warnings.catch_warnings():
            # It is no end: what collapses in the sample is told by the fit to all rows.
            warnings.simplefilter("ignore", Starved)
            found = fit_em(
                key,
                stream.sample,
                stream.num_components,
                covariance=stream.kind,
                num_starts=num_starts,
                prior_count=1.0,
            )
        return found.params
    given = starts.given(start, table(stream.sample, "a Gaussian mixture"), stream.num_components, stream.kind)
    return jax.tree.map(lambda leaf: leaf[0], given._replace(mean=given.mean - stream.centre))


def _mended(key: Key, params: Gmm, stream: Stream, allowed: int) -> tuple[Gmm, int]:
    bad = starts.collapsed(params, stream.parts)
    count = int(jnp.sum(bad))
    if count > allowed:
        raise ValueError(f"{count} components collapsed after as many had begun anew as max_reseeds allows; {FEWER}")
    return (starts.reseed(key, params, bad, stream.parts) if count else params), count


def _pass(params: Gmm, stream: Stream) -> tuple[Moments, float]:
    """Moments of all rows, chunk by chunk, and their log-likelihood, which the host sums in float64."""
    total: Any = None
    evidence = 0.0
    for chunk in stream.chunks():
        found, part = _moments(params, *_padded(chunk, stream.size), stream.kind)
        total = found if total is None else merge(total, found)
        evidence += float(part)
    return total, evidence


def _of_batch(params: Gmm, batch: np.ndarray, stream: Stream) -> tuple[Moments, float]:
    """Moments and log-likelihood of a batch, per row."""
    moments, evidence = _moments(params, *_padded(batch, stream.size), stream.kind)
    return scaled(moments, 1 / len(batch)), float(evidence) / len(batch)


@functools.partial(jax.jit, static_argnums=3)
def _moments(params: Gmm, x: Array, weight: Array, kind: Structure) -> tuple[Moments, Array]:
    return expect(whitener(params), in_chunks(x, weight, len(params.weight)), kind.diagonal)


def _padded(chunk: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of weight 0 up to ``size``, or to a power of 2 that is enough: few shapes compile."""
    extra = min(size, 2 ** math.ceil(math.log2(len(chunk)))) - len(chunk)
    weight = np.ones(len(chunk), chunk.dtype)
    return np.pad(chunk, ((0, extra), (0, 0))), np.pad(weight, (0, extra))


def _result(
    stream: Stream, params: Gmm, trace: np.ndarray, steps: int, converged: bool, reseeded: np.ndarray
) -> FitResult:
    numbers: tuple[Any, ...] = (trace, np.int32(steps), np.bool_(converged), reseeded.astype(np.int32), np.int32(0))
    found = FitResult(stream.outside(params), *numbers)
    finite_end(found, "a Gaussian mixture")
    report(found, int(reseeded.sum()), FEWER)
    return found
