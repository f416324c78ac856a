"""Certificates: an estimator's bias, variance and cost, measured where the gradient is known."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from vaejax import checks
from vaejax.estimators.variance import GradientVariance, members, variance
from vaejax.types import Array, Estimator, Key, Params, as_batch


class Certificate(NamedTuple):
    """What was measured of an estimator at one place.

    Attributes:
        bias: group -> ‖mean − exact‖ as a share of ‖exact‖; of the order of ``standard_error`` where there is none, which is much where
            the exact gradient is near zero: ``z`` tells.
        z: group -> the largest |mean − exact| of an entry, in standard errors (and roundings, 1e-6 of the largest entry): above 5, the mean
            is not the exact gradient.
        variance: group -> trace of the covariance of one estimate.
        signal_to_noise: group -> ‖E g‖ / √variance.
        standard_error: group -> standard error of the mean, as a share of the exact gradient's norm.
        seconds: median time of one compiled estimate.
        num_draws: how many estimates.
    """

    bias: dict[str, float]
    z: dict[str, float]
    variance: dict[str, float]
    signal_to_noise: dict[str, float]
    standard_error: dict[str, float]
    seconds: float
    num_draws: int

    def biased(self, threshold: float = 5.0) -> bool:
        """Whether some group's z is above the threshold, or no number."""
        return any(not z <= threshold for z in self.z.values())

    def __str__(self) -> str:
        head = f"{'group':20} {'bias ± standard error':>24} {'z':>7} {'variance':>11} {'signal/noise':>13}"
        rows = [
            f"{name:20} {self.bias[name]:>15.2g} ± {self.standard_error[name]:<6.2g} {self.z[name]:>7.1f} {self.variance[name]:>11.3g} "
            f"{self.signal_to_noise[name]:>13.3g}"
            for name in self.z
        ]
        cost = "" if math.isnan(self.seconds) else f", {1e3 * self.seconds:.3g} ms each"
        largest = float(np.max(list(self.z.values())))
        verdict = "not finite" if math.isnan(largest) else "biased" if self.biased() else "no bias seen"
        return "\n".join(
            [
                head,
                *rows,
                f"{verdict} (largest z {largest:.1f}; above 5 is bias); {self.num_draws} draws{cost}",
            ]
        )

    @property
    def variance_times_seconds(self) -> dict[str, float]:
        """Group -> variance × time: the variance that a second of averaging would leave."""
        return {name: value * self.seconds for name, value in self.variance.items()}


def certify(
    estimator: Estimator,
    exact: Params,
    params: Params,
    key: Key,
    batch: Any,
    *,
    num_draws: int = 10_000,
    state: Any = None,
    step: Any = 0,
    groups: Callable[[str], str] | None = None,
    block_size: int = 500,
    repeats: int = 20,
) -> Certificate:
    """Compares many gradients of an estimator with the exact one, and times it.

    Args:
        estimator: any.
        exact: the gradient of the loss, a tree like the params (`enumerate_latents`, or a closed form).
        params: where to look.
        key: typed key.
        batch: a `Batch` or an array.
        num_draws: estimates.
        state: the estimator's, held fixed; None takes a fresh one.
        step: for schedules.
        groups: as in `estimators.variance`.
        block_size: estimates side by side.
        repeats: of the timing; 0 leaves it out (NaN).

    Returns:
        `Certificate`.

    Examples:
        >>> import jax, vaejax
        >>> from vaejax.estimators import disarm, enumerate_latents
        >>> model, elbo = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3), vaejax.objectives.elbo
        >>> params, x, key = model.init(jax.random.key(0)), jax.numpy.ones((5, 4)), jax.random.key(1)
        >>> enumeration = enumerate_latents(model, elbo)
        >>> exact = enumeration.estimate(params, enumeration.init(params, key, x), key, x)[0].grads
        >>> result = certify(disarm(model, elbo), exact, params, key, x, num_draws=1000, repeats=0)
        >>> result.biased()
        False
    """
    batch = as_batch(batch)
    if checks.shapes_by_path(exact) != checks.shapes_by_path(params):
        raise ValueError(
            f"exact must be the gradient of the loss, a tree like the params, as Estimate.grads is; got another {type(exact).__name__}"
        )
    state = estimator.init(params, key, batch) if state is None else state
    measured = variance(
        estimator, params, key, batch, num_draws=num_draws, state=state, step=step, groups=groups, block_size=block_size
    )
    bias, z = _compared(measured, exact, groups)
    norms = {name: max(_norm(exact, paths), 1e-300) for name, paths in members(params, groups).items()}
    return Certificate(
        bias,
        z,
        variance=_floats(measured.total_variance),
        signal_to_noise=_floats(measured.signal_to_noise),
        standard_error={name: float(error) / norms[name] for name, error in measured.standard_error.items()},
        seconds=_seconds(estimator, params, state, key, batch, step, repeats),
        num_draws=num_draws,
    )


def _compared(
    measured: GradientVariance, exact: Params, groups: Callable[[str], str] | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Bias and z-score of each group."""
    gaps, means, spreads = (
        {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (exact, measured.mean, measured.variance)
    )
    largest = max(float(np.abs(leaf).max()) for leaf in gaps.values())
    bias, z = {}, {}
    for name, paths in members(measured.mean, groups).items():
        differences = [np.abs(means[path] - gaps[path]) for path in paths]
        errors = [np.sqrt(spreads[path] / measured.num_draws) + 1e-6 * max(largest, 1e-30) for path in paths]
        norm = math.sqrt(sum(float((gaps[path] ** 2).sum()) for path in paths))
        bias[name] = math.sqrt(sum(float((d**2).sum()) for d in differences)) / max(norm, 1e-300)
        z[name] = float(np.max([(d / e).max() for d, e in zip(differences, errors)]))
    return bias, z


def _norm(tree: Params, paths: list[str]) -> float:
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    return math.sqrt(sum(float((np.asarray(leaves[path]) ** 2).sum()) for path in paths))


def _floats(values: dict[str, Array]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _seconds(estimator: Estimator, params: Params, state: Any, key: Key, batch: Any, step: Any, repeats: int) -> float:
    """The median time of a compiled estimate."""
    if not repeats:
        return math.nan
    run = jax.jit(estimator.estimate)
    times = []
    for k in jax.random.split(key, repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(run(params, state, k, batch, step))
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))
