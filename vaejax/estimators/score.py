"""Score-function (REINFORCE) gradients, with baselines as parts, and VIMCO's signal for objectives of several draws."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.dists import is_reparameterized
from vaejax.dists.chain import layers
from vaejax.dists.factors import factors, log_prob_entries
from vaejax.estimators import baselines
from vaejax.estimators.base import Terms, gradient, peek_posterior, refuse
from vaejax.estimators.baselines import Baseline
from vaejax.estimators.problem import Problem, features, problem, sampled
from vaejax.estimators.signals import local_signals, moves_with_log_weights, vimco_signal
from vaejax.numerics import broadcasts
from vaejax.terms import log_terms
from vaejax.types import Array, Batch, Estimate, Estimator, Key, LogTerms, Model, Params, as_batch, call


def score_function(
    model: Model,
    objective: Any,
    *,
    num_samples: int = 1,
    baseline: Baseline | None = None,
    rao_blackwell: bool = False,
    terms: Terms = log_terms,
) -> Estimator:
    """REINFORCE: Σ_k (signal_k − baseline) ∇ log q(z_k|x), beside the gradient at fixed draws. For any posterior.

    The signal of a draw is its own objective where the objective averages over draws (the ELBO), else the whole objective;
    `leave_one_out` then subtracts the objective of the other draws. Layers that reparameterise keep their path beside layers
    that do not; a posterior of which all layers reparameterise is scored whole.

    Args:
        model: any posterior with a log-probability; chains of layers too.
        objective: any function of log-terms.
        num_samples: K, draws per example.
        baseline: `estimators.baselines`: None (plain), `constant`, `moving_average`, `network`, `leave_one_out`, sums of them.
        rao_blackwell: gives each latent of a factorised discrete layer a signal without the terms that do not depend on it (the other
            latents' log q; for a single layer under a factorised prior their log p too), and each layer of a chain one without the log q
            of the layers before it. For objectives that average over draws and are linear in log p(z) and log q(z|x), as the ELBO is.
        terms: as in `pathwise`.

    Raises:
        ValueError: a baseline or an objective that needs K > 1 with one draw; Rao-Blackwellised signals of a bound of many draws.

    Source:
        Williams 1992; Paisley, Blei & Jordan 2012, eq. 4; Ranganath, Gerrish & Blei 2014, eqs. 3–5 (Rao-Blackwellised signals).

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = score_function(model, vaejax.objectives.elbo, num_samples=4, baseline=baselines.leave_one_out())
        >>> params, x = model.init(jax.random.key(0)), jax.numpy.ones((5, 4))
        >>> state = estimator.init(params, jax.random.key(1), x)
        >>> estimate, state = estimator.estimate(params, state, jax.random.key(2), x)
        >>> estimate.objective.shape
        (5,)
    """
    baseline = baselines.constant() if baseline is None else baseline
    if not isinstance(baseline, Baseline):
        raise TypeError(f"baseline must be made by vaejax.estimators.baselines, got {type(baseline).__name__}")
    made = problem("score_function", model, objective, num_samples, terms)
    if rao_blackwell and not made.objective.averages_draws:
        refuse("score_function", made.objective, "a signal for each latent needs a mean over draws", "use vimco")
    if rao_blackwell:
        _check_slopes("score_function", made)
    return _score_family("score_function", made, baseline, _local if rao_blackwell else _values)


def nvil(
    model: Model,
    objective: Any,
    *,
    num_samples: int = 1,
    baseline: Baseline | None = None,
    decay: float = 0.8,
    rao_blackwell: bool = True,
    terms: Terms = log_terms,
) -> Estimator:
    """Score function with an input-dependent baseline, centring and variance normalisation, all learned from earlier steps.

    Unbiased up to a positive factor on what the posterior's log-probabilities earn, 1/max(1, a running standard deviation of the
    signals), which is reported as the metric ``signal_scale``.

    Args:
        model: as in `score_function`.
        objective: an objective that averages over draws, such as the ELBO.
        num_samples: K.
        baseline: of x; None is `baselines.network()`.
        decay: of the running mean and variance.
        rao_blackwell: as in `score_function`: layer-wise signals.
        terms: as in `pathwise`.

    Source:
        Mnih & Gregor 2014, sections 2.2–2.3 and algorithm 1.

    Examples:
        >>> import vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = nvil(model, vaejax.objectives.elbo, baseline=baselines.network((20,)))
    """
    inner = baselines.added(
        baselines.network() if baseline is None else baseline, baselines.moving_average(decay=decay)
    )
    made = problem("nvil", model, objective, num_samples, terms, averages=True)
    if rao_blackwell:
        _check_slopes("nvil", made)
    return _score_family("nvil", made, baselines.normalized(inner, decay=decay), _local if rao_blackwell else _values)


def vimco(
    model: Model,
    objective: Any,
    *,
    num_samples: int = 2,
    mean: str = "geometric",
    terms: Terms = log_terms,
) -> Estimator:
    """Score function for objectives of K draws: each draw's signal is what the objective loses when its weight is replaced.

    Args:
        model: as in `score_function`.
        objective: a function of the log-weights that rises by c where all of them do, such as `vaejax.objectives.iwae`.
        num_samples: K > 1.
        mean: of the other draws' weights, which stands in for a draw's own: ``"geometric"`` or ``"arithmetic"``.
        terms: as in `pathwise`.

    Raises:
        ValueError: K = 1, or an objective that is no such function.

    Source:
        Mnih & Rezende 2016, eqs. 8–10.

    Examples:
        >>> import vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = vimco(model, vaejax.objectives.iwae, num_samples=5)
    """
    made = problem("vimco", model, objective, num_samples, terms)
    checks.one_of(mean, "mean", ("geometric", "arithmetic"))
    if num_samples < 2:
        way_out = "use num_samples=2 or more, or score_function (for the ELBO also disarm or nvil)"
        refuse("vimco", made.objective, "it needs K > 1 draws, got K=1", way_out)
    if not made.objective.of_log_weights:
        refuse("vimco", made.objective, "it is no function of the log-weights alone", "use score_function")
    if not moves_with_log_weights(made.objective, num_samples):
        refuse(
            "vimco",
            made.objective,
            "it does not rise by c where all log-weights do, as bounds do",
            "use score_function",
        )
    return _score_family("vimco", made, baselines.constant(), functools.partial(_vimco, mean))


class ScoreState(NamedTuple):
    """The baselines' states, one for each layer that is scored."""

    baselines: tuple


# (problem, stopped log-terms of the draws, params, key, batch, step) -> one signal for each layer
Signals = Callable[..., list[Array]]


def _score_family(name: str, made: Problem, baseline: Baseline, signals: Signals) -> Estimator:
    if baseline.needs_many_samples and (made.num_samples < 2 or not made.objective.averages_draws):
        if made.num_samples < 2:
            reason, way_out = "and there are none at K=1", "use num_samples=2 or more, or moving_average()"
        else:
            reason, way_out = "whose shares of a bound of many draws are not known", "use vimco, or moving_average()"
        refuse(name, made.objective, f"its baseline is made of the other draws, {reason}", way_out)

    def init(params: Params, key: Key, batch: Any) -> ScoreState:
        checks.key(key)
        batch = as_batch(batch)
        seen = peek_posterior(made.model, params, key, batch)
        for layer in seen.layers:
            checks.log_prob(layer, name)
        x = features(batch, seen.batch_ndims)
        return ScoreState(tuple(baseline.init(k, x) for k in jax.random.split(key, sum(_scored(seen.layers)))))

    def estimate(params: Params, state: ScoreState, key: Key, batch: Any, step: Any = 0) -> tuple[Estimate, ScoreState]:
        batch = as_batch(batch)
        scored = _scored(peek_posterior(made.model, params, key, batch).layers)

        def draw(params: Params) -> LogTerms:
            return made.at_path(params, key, batch, _stopped if all(scored) else _kept)

        drawn = draw(params)
        found = [s for s, keep in zip(signals(made, drawn, params, key, batch, step), scored) if keep]
        x = features(batch, drawn.log_prior.ndim - 1)
        # One factor for all layers, or the gradient would not be a multiple of the true one.
        scale = functools.reduce(jnp.minimum, [jnp.asarray(baseline.scale(own)) for own in state.baselines])
        left = [scale * _centered(baseline, own, x, s) for own, s in zip(state.baselines, found)]

        def surrogate(live: LogTerms) -> Array:
            return _weighted_scores(live, scored, left)

        result = gradient(made.objective, params, batch, step, draw, surrogate)
        after = tuple(call(baseline.update, own, x, s, weight=batch.weight) for own, s in zip(state.baselines, found))
        if batch.weight is not None:
            # A batch of absent examples has no signals to learn from.
            is_empty = jnp.sum(batch.weight) == 0
            after = jax.tree.map(lambda new, old: jnp.where(is_empty, old, new), after, state.baselines)
        metrics = {**result.metrics, "signal_scale": scale.astype(result.objective.dtype)}
        return result._replace(metrics=metrics), ScoreState(after)

    return Estimator(init, estimate, made.model.trainable, made.model.refresh)


def _centered(baseline: Baseline, state: Any, x: Array, signals: Array) -> Array:
    """The signals less their baseline, which may be constant along axes of the signals but adds none.

    Raises:
        ValueError: a baseline of another shape, such as ``[*batch, 1]``.
    """
    value = baseline.value(state, x, signals)
    shape = jnp.shape(value)
    if len(shape) > signals.ndim or any(n not in (1, m) for n, m in zip(shape[::-1], signals.shape[::-1])):
        raise ValueError(
            f"the baseline's value must broadcast to the signals [K, *batch] = {list(signals.shape)}, got {list(shape)}. "
            "Give one number per example, without an axis of outputs"
        )
    return broadcasts(jnp.subtract)(signals, value)


def _scored(seen: list[Any]) -> list[bool]:
    """Which layers are scored: those without a path, or all where every layer has one."""
    moves = [is_reparameterized(layer) is True for layer in seen]
    return [True] * len(seen) if all(moves) else [not move for move in moves]


def _kept(layer: Any, key: Key, sample_shape: tuple[int, ...]) -> Any:
    """A draw that keeps its path only where the layer is not scored: what moves and is scored would count twice."""
    z = sampled(layer, key, sample_shape)
    return z if is_reparameterized(layer) is True else jax.lax.stop_gradient(z)


def _stopped(layer: Any, key: Key, sample_shape: tuple[int, ...]) -> Any:
    return jax.lax.stop_gradient(sampled(layer, key, sample_shape))


def _weighted_scores(live: LogTerms, scored: list[bool], signals: list[Array]) -> Array:
    """The mean over draws of Σ_layers signal · log q, ``[*batch]``, with entries where the signal has them."""
    kept = [pair for pair, keep in zip(layers(live.posterior, live.latents), scored) if keep]
    total: Any = 0.0
    for (layer, z), signal in zip(kept, signals):
        found = factors(layer)
        by_entry = signal.ndim > live.log_prior.ndim
        log_prob = log_prob_entries(found, z) if by_entry and found is not None else layer.log_prob(z)
        share = jnp.mean(signal * log_prob, 0)
        total = total + jnp.sum(share, tuple(range(live.log_prior.ndim - 1, share.ndim)))
    return total


def _values(made: Problem, drawn: LogTerms, params: Params, key: Key, batch: Batch, step: Any) -> list[Array]:
    """Each draw's own objective, or K times the whole where there is no such thing, for every layer."""
    if made.objective.averages_draws:
        signal = made.values(drawn, step)
    else:
        whole = made.objective(drawn._replace(weight=batch.weight), step=step)
        signal = jnp.broadcast_to(made.num_samples * whole, drawn.log_prior.shape)
    return [signal] * len(layers(drawn.posterior, drawn.latents))


def _local(made: Problem, drawn: LogTerms, params: Params, key: Key, batch: Batch, step: Any) -> list[Array]:
    def total(log_prior: Array, log_posterior: Array) -> tuple[Array, Array]:
        values = made.values(drawn._replace(log_prior=log_prior, log_posterior=log_posterior), step)
        return jnp.sum(values), values

    slopes, values = jax.grad(total, argnums=(0, 1), has_aux=True)(drawn.log_prior, drawn.log_posterior)
    prior = call(made.model.prior, params, context=batch.context, mask=batch.mask)
    return local_signals(drawn, prior, values, slopes)


def _check_slopes(name: str, made: Problem) -> None:
    """Refuses signals of single latents where what they leave out does not enter the objective with a constant factor."""
    with jax.ensure_compile_time_eval():
        # By NumPy: linspace of JAX computes NaN for one sample, which `jax_debug_nans` reports.
        at = jnp.asarray(np.linspace(-2.0, -1.0, made.num_samples)[:, None] * [[1.0, 3.0]], float)
        slopes = jax.grad(lambda p, q: jnp.sum(made.objective(LogTerms(at, p, q))), argnums=(0, 1))(2 * at, at)
        constant = all(bool(jnp.all(jnp.abs(s - s[0, 0]) < 1e-4)) for s in slopes)
    if not constant:
        refuse(name, made.objective, "it is not linear in log p(z) and log q(z|x)", "use rao_blackwell=False")


def _vimco(mean: str, made: Problem, drawn: LogTerms, *rest: Any) -> list[Array]:
    signal = vimco_signal(drawn.log_weights, mean=mean, objective=made.objective, step=rest[-1])
    return [made.num_samples * signal] * len(layers(drawn.posterior, drawn.latents))
