"""ELBO and log-likelihood of a whole data set, block by block under a progress bar, and in words."""

import time
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from vaejax import checks, evaluate
from vaejax.types import Batch, Key, Model, Params

_BLOCK = 1000
_BOUND_SAMPLES = 100
# Below some dozens the estimate is biased by more than its standard error says.
_ENOUGH = 50


class Results(NamedTuple):
    """What evaluation found.

    Attributes:
        elbo: mean over the examples, nats.
        log_likelihood: likewise.
        effective_sample_size: the median, of the number of importance samples.
        samples: that number.
        seconds: taken.
    """

    elbo: evaluate.MeanEstimate
    log_likelihood: evaluate.MeanEstimate
    effective_sample_size: float
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
    start, total = time.perf_counter(), len(batch.x)
    bounds, evidences = [], []
    disable = None if progress is None else not progress
    with tqdm(total=total, unit="example", desc="evaluating", disable=disable, dynamic_ncols=True) as bar:
        for number, first in enumerate(range(0, total, _BLOCK)):
            block = jax.tree.map(lambda leaf: leaf[first : first + _BLOCK], batch)  # noqa: B023
            bound_key, evidence_key = jax.random.split(jax.random.fold_in(key, number))
            bounds.append(evaluate.elbo(model, params, bound_key, block, num_samples=min(samples, _BOUND_SAMPLES)))
            evidences.append(evaluate.log_marginal(model, params, evidence_key, block, num_samples=samples))
            bar.update(len(jax.block_until_ready(evidences[-1].estimate)))
    bound, evidence = (jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts) for parts in (bounds, evidences))
    return Results(
        evaluate.mean_estimate(bound),
        evaluate.mean_estimate(evidence),
        float(np.median(evidence.effective_sample_size)),
        samples,
        time.perf_counter() - start,
    )


def in_words(results: Results, split: str = "test", *, levels: int | None = None) -> str:
    """The results in a few lines for a terminal; ``levels`` where grey levels were modelled as real numbers."""
    lines = [
        f"{split} ELBO            {results.elbo} nats",
        f"{split} log-likelihood  {results.log_likelihood} nats",
    ]
    if levels is not None:
        lines.append(f"  (densities of x / {levels})")
    effective = f"median effective sample size {results.effective_sample_size:.1f}"
    if results.effective_sample_size >= _ENOUGH:
        return "\n".join([*lines, f"({results.samples} importance samples an example, {effective}: enough)"])
    lines.append(
        f"({results.samples} importance samples an example, {effective}: few. The log-likelihood is a lower bound in the mean,"
    )
    lines.append("and more --samples will raise it by more than the Monte Carlo ±.)")
    return "\n".join(lines)


def as_dict(results: Results) -> dict[str, Any]:
    """The results for a JSON file."""
    return {
        "elbo": results.elbo._asdict(),
        "log_likelihood": results.log_likelihood._asdict(),
        "median_effective_sample_size": results.effective_sample_size,
        "importance_samples": results.samples,
        "seconds": results.seconds,
    }
