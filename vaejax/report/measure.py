"""ELBO and log-likelihood of a whole data set, block by block under a progress bar, and in words."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from vaejax import checks, data, evaluate
from vaejax.types import Batch, Key, Model, Params

_BLOCK = 1000
_BOUND_SAMPLES = 100


class Results(NamedTuple):
    """What evaluation found.

    Attributes:
        elbo: mean over the examples, nats.
        log_likelihood: likewise.
        effective_sample_size: the median, of the number of importance samples.
        samples: that number.
        log_scale: what to subtract for the data's own units, 0 unless they were standardised.
        seconds: taken.
    """

    elbo: evaluate.MeanEstimate
    log_likelihood: evaluate.MeanEstimate
    effective_sample_size: float
    samples: int
    log_scale: float
    seconds: float


def measure(
    model: Model,
    params: Params,
    key: Key,
    batch: Batch,
    *,
    samples: int,
    scaling: data.Scaling | None = None,
    progress: bool | None = None,
) -> Results:
    """`evaluate.elbo` and `evaluate.log_marginal` of a batch, a thousand examples at a time.

    Args:
        model: the model.
        params: its parameters.
        key: typed key.
        batch: the examples, as the model sees them.
        samples: importance samples per example (the ELBO takes at most 100).
        scaling: of `vaejax.data.standardize`, where the data went through it.
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
        0.0 if scaling is None else float(jnp.mean(data.log_scale_sum(scaling, batch))),
        time.perf_counter() - start,
    )


def in_words(results: Results, split: str = "test") -> str:
    """The results in a few lines for a terminal."""
    lines = [
        f"{split} ELBO            {results.elbo} nats",
        f"{split} log-likelihood  {results.log_likelihood} nats",
    ]
    if results.log_scale:
        own = results.log_likelihood.mean - results.log_scale
        lines.append(f"  (of the standardised data; in the data's own units {own:.3f} nats)")
    return "\n".join(
        [
            *lines,
            f"The log-likelihood is a lower bound in the mean, from {results.samples} importance samples an example; the median "
            "example had",
            f"{results.effective_sample_size:.1f} effective ones, and while that is below some dozens more --samples raise it by more "
            "than the Monte Carlo ±.",
        ]
    )


def as_dict(results: Results) -> dict[str, Any]:
    """The results for a JSON file."""
    return {
        "elbo": results.elbo._asdict(),
        "log_likelihood": results.log_likelihood._asdict(),
        "own_units_log_likelihood": results.log_likelihood.mean - results.log_scale,
        "median_effective_sample_size": results.effective_sample_size,
        "importance_samples": results.samples,
        "seconds": results.seconds,
    }
