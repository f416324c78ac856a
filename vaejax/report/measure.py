"""ELBO and log-likelihood of a whole data set, block by block under a progress bar, and in words."""

import time
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np

from vaejax import checks, evaluate
from vaejax.evaluate.summary import count_in_words
from vaejax.types import Batch, Key, Model, Params, as_batch

_BOUND_SAMPLES = 100
# Below some dozens the estimate is biased by more than its standard error says.
_ENOUGH = 50
# Draws of a block of examples.
_DRAWS_AT_ONCE = 1_000_000


class Results(NamedTuple):
    """What evaluation found.

    Attributes:
        elbo: mean over the examples, nats.
        log_likelihood: likewise.
        effective_sample_size: the median, of the number of importance samples.
        untrusted: number of examples whose Pareto k̂ says that importance sampling failed; None where k̂ is not defined.
        samples: that number.
        seconds: taken.
    """

    elbo: evaluate.MeanEstimate
    log_likelihood: evaluate.MeanEstimate
    effective_sample_size: float
    untrusted: int | None
    samples: int
    seconds: float


def measure(
    model: Model,
    params: Params,
    key: Key,
    batch: Batch,
    *,
    samples: int,
    progress: bool | None = None,
) -> Results:
    """`evaluate.elbo` and `evaluate.log_marginal` of a batch, a thousand examples at a time.

    Args:
        model: the model.
        params: its parameters.
        key: typed key.
        batch: the examples, as the model sees them.
        samples: importance samples per example (the ELBO takes at most 100).
        progress: a bar; None shows it on a terminal only.
    """
    checks.positive_int(samples, "samples")
    start = time.perf_counter()

    def run(key: Key, block: Batch) -> dict[str, Any]:
        bound_key, evidence_key = jax.random.split(key)
        bound = evaluate.elbo(model, params, bound_key, block, num_samples=min(samples, _BOUND_SAMPLES))
        evidence = _evidence(model, params, evidence_key, block, samples)
        found = {"elbo": bound.estimate, "elbo_error": bound.standard_error}
        return {**found, **evidence._asdict()}

    # Between blocks Ctrl-C is heard, and the bar moves.
    block_size = max(10, min(1000, _DRAWS_AT_ONCE // samples))
    found = evaluate.in_blocks(run, key, batch, block_size=block_size, progress=progress)
    weight = as_batch(batch).weight
    counted = slice(None) if weight is None else np.asarray(weight) > 0
    k = found["pareto_k"][counted]
    return Results(
        evaluate.mean_estimate(found["elbo"], found["elbo_error"], weight=weight),
        evaluate.mean_estimate(found["estimate"], found["standard_error"], weight=weight),
        float(np.median(found["effective_sample_size"][counted])),
        None if np.isnan(k).all() else int(np.sum(k > evaluate.pareto_threshold(samples))),
        samples,
        time.perf_counter() - start,
    )


def _evidence(model: Model, params: Params, key: Key, block: Batch, samples: int) -> evaluate.LogMarginal:
    # What the warning counts for a block stands in the results for all of them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", evaluate.UntrustworthyEstimate)
        return evaluate.log_marginal(model, params, key, block, num_samples=samples)


def in_words(results: Results, split: str = "test", *, levels: int | None = None) -> str:
    """The results in a few lines for a terminal; ``levels`` where grey levels were modelled as real numbers."""
    lines = [
        f"{split} ELBO            {results.elbo} nats",
        f"{split} log-likelihood  {results.log_likelihood} nats",
    ]
    if levels is not None:
        lines.append(f"  (densities of x / {levels})")
    drawn = f"{results.samples} importance samples an example, median effective sample size {results.effective_sample_size:.1f}"
    total, few = (
        count_in_words(results.log_likelihood.num_examples),
        results.untrusted is None and results.effective_sample_size < _ENOUGH,
    )
    if not results.untrusted and not few:
        return "\n".join([*lines, f"({drawn})"])
    why = "few" if few else f"Pareto k̂ too large for {results.untrusted} of {total} examples"
    lines.append(f"({drawn}: {why}. The log-likelihood")
    lines.append("is a lower bound in the mean, which more --samples may raise by more than the Monte Carlo ±.)")
    return "\n".join(lines)


def as_dict(results: Results) -> dict[str, Any]:
    """The results for a JSON file."""
    return {
        "elbo": results.elbo._asdict(),
        "log_likelihood": results.log_likelihood._asdict(),
        "median_effective_sample_size": results.effective_sample_size,
        "examples_with_large_pareto_k": results.untrusted,
        "importance_samples": results.samples,
        "seconds": results.seconds,
    }
