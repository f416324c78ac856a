"""The aggregate posterior q(z) = (1/N) Σ_n q(z|x_n): mutual information, its distance from the prior, total correlation."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks, compilation
from vaejax.dists import Binomial
from vaejax.dists.backend import distrax
from vaejax.dists.factors import factors, log_prob_entries
from vaejax.evaluate.encoding import alone, encode, refuse_nan
from vaejax.evaluate.latent.active_units import by_single, opened_examples, present
from vaejax.evaluate.simulate import batch_shape_of
from vaejax.evaluate.stream import budget
from vaejax.evaluate.summary import MeanEstimate, mean_estimate
from vaejax.numerics import broadcasts
from vaejax.types import Array, Batch, Key, Model, Params, call, default_float

# Components of the mixture that are encoded at once.
_COMPONENTS = 256


class Aggregate(NamedTuple):
    """Where KL(q(z|x) ‖ p(z)) goes, in nats, all on the same draws.

    mean_kl = mutual_information + marginal_kl, and marginal_kl = total_correlation + dimension_kl. Each has a standard error between
    examples, to first order that of the plugged-in q(z) too, and a Monte Carlo error of the draws, NaN for one draw an example.

    Attributes:
        mean_kl: E log q(z|x) − log p(z).
        mutual_information: I(x; z) = E log q(z|x) − log q(z), between z and the index of an example (index-code), at most log N.
        marginal_kl: KL(q(z) ‖ p(z)) = E log q(z) − log p(z).
        total_correlation: KL(q(z) ‖ ∏_d q(z_d)); None where the dimensions of q(z|x) depend on each other.
        dimension_kl: Σ_d KL(q(z_d) ‖ p(z_d)); None where those of p(z) do, too.
        num_components: how many of q(z) each draw saw: N (with weights their sum), or the M of ``"stratified"``.
        index_entropy: entropy of the index of an example, nats, for a batch with weights; None is log N.
    """

    mean_kl: MeanEstimate
    mutual_information: MeanEstimate
    marginal_kl: MeanEstimate
    total_correlation: MeanEstimate | None
    dimension_kl: MeanEstimate | None
    num_components: float
    index_entropy: float | None = None

    @property
    def ceiling(self) -> float:
        """The most that the mutual information can come to, nats: log N, or with weights the entropy of the index."""
        if self.index_entropy is not None:
            return self.index_entropy
        return math.log(self.mutual_information.num_examples)


def aggregate(
    model: Model,
    params: Params,
    key: Key,
    batch: Any,
    *,
    method: str = "full",
    num_samples: int = 1,
    batch_size: int = 1000,
) -> Aggregate:
    """Mean KL = mutual information + KL(q(z) ‖ p(z)), the latter = total correlation + Σ_d KL(q(z_d) ‖ p(z_d)).

    q(z) is the mixture of the posteriors of the N given examples, each draw's own among them. The mutual information is therefore that
    between z and the index of an example, and at most log N: a value near it is a lower bound of the population's that more data would
    raise, and what it lacks is then in KL(q(z) ‖ p(z)) and the total correlation instead. Context and mask of an example travel with it.

    With weights an example counts as often as its weight says, in q(z) and in every mean: q(z) = Σ_n w_n q(z|x_n) / Σ_n w_n, and the most
    that the mutual information can come to is the entropy of the index.

    ``"full"`` evaluates all N components at all K·N draws (N = 10,000 and D = 50 take some ten seconds a draw on two CPU cores).
    ``"stratified"`` splits the shuffled examples into parts of M and takes only those of a draw's part: its own with weight 1/N, the
    others with (N − 1)/(N(M − 1)) each, the mean of the weights of Chen et al. over which of the others comes last. q(z) is unbiased
    then, but log q(z) too low in the mean, so that mutual information is too high and KL(q(z) ‖ p(z)) too low, less so the larger M is; at
    M = N it is ``"full"``.

    Args:
        model: any latents with a log_prob, under a prior that is the same for all examples.
        params: its parameters.
        key: typed key.
        batch: a `Batch` or an array ``[*batch, *event]`` of at least two examples; its batch axes are one axis of examples here.
        method: ``"full"`` or ``"stratified"``.
        num_samples: K, draws of z per example; two or more tell the Monte Carlo error.
        batch_size: M, of ``"stratified"`` only; all examples where there are fewer.

    Returns:
        `Aggregate`.

    Raises:
        TypeError: a raw key, data that are no arrays.
        ValueError: fewer than two examples, an unknown method, a prior that depends on the example, weights, NaN.

    Source:
        Hoffman & Johnson 2016 (the first two terms); Chen, Li, Grosse & Duvenaud 2018, eq. 2 and appendix C.2.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> found = aggregate(model, model.init(jax.random.key(0), None), jax.random.key(1), jax.numpy.eye(4), num_samples=100)
        >>> bool(found.mutual_information.mean <= found.ceiling)
        True
    """
    checks.key(key)
    checks.one_of(method, "method", ("full", "stratified"))
    num_samples = checks.positive_int(num_samples, "num_samples")
    if checks.positive_int(batch_size, "batch_size") < 2:
        raise ValueError("batch_size must be at least 2: a draw's own component and one other")
    examples = present(opened_examples(model, params, batch, "aggregate", at_least=2))
    prior = call(model.prior, params, context=examples.context, mask=examples.mask)
    _check_shared(prior)
    count = len(examples.x)
    size = count if method == "full" else min(batch_size, count)
    weight = None if examples.weight is None else np.asarray(examples.weight, np.float64)
    share = np.full(count, 1 / count) if weight is None else weight / weight.sum()
    if weight is not None:
        examples = examples._replace(weight=jnp.asarray(count * share, default_float()))
    # Differences in float64, so that the parts add up to the whole.
    found = jax.tree.map(
        lambda v: np.asarray(v, np.float64), _compiled(model, num_samples, size, params, key, examples)
    )
    refuse_nan(found.log_posterior, "log q(z|x)")
    refuse_nan(found.log_prior, "log p(z)")
    refuse_nan(found.joint, "log q(z)")
    kl, parts = found.log_posterior - found.log_prior, found.by_dimension
    # What float32 makes of −log N may lie below it.
    joint = np.maximum(found.joint, np.log(share)[:, None])
    mean_kl = _estimate(kl, weight)
    return Aggregate(
        mean_kl,
        _estimate(-joint, weight),
        _estimate(kl + joint, weight),
        None if parts is None else _estimate(joint - parts, weight),
        None if parts is None or not _factorises(prior) else _estimate(kl + parts, weight),
        mean_kl.num_examples if size == count else size,
        None if weight is None else float(-(share * np.log(share)).sum()),
    )


class _Draws(NamedTuple):
    """Draws z ~ q(z|x), examples and draws on the leading axes."""

    z: Any
    log_prob: Array  # log q(z|x) of the draw's own example
    parts: Array | None  # [..., D] its parts by dimension


class _Terms(NamedTuple):
    """Of each draw, ``[N, K]``."""

    log_posterior: Any  # log q(z|x) of its own example
    log_prior: Any
    joint: Any  # log q(z) − log q(z|x)
    by_dimension: Any  # Σ_d of the same for each z_d, or None


def _estimate(values: np.ndarray, weight: np.ndarray | None) -> MeanEstimate:
    """From ``[N, K]``."""
    draws = values.shape[1]
    with np.errstate(invalid="ignore"):  # an infinite KL has an undefined spread
        error = values.std(1, ddof=1) / math.sqrt(draws) if draws > 1 else np.full(len(values), np.nan)
        return mean_estimate(values.mean(1), error, weight=weight)


def _check_shared(prior: Any) -> None:
    shape = batch_shape_of(prior)
    if shape:
        raise ValueError(
            f"p(z) has batch shape {list(shape)}: it depends on the example, and q(z) has no single prior to be compared with; give the "
            "examples of one context c and model._replace(prior=lambda params: model.prior(params, c)), c without batch axes; or use "
            "vaejax.evaluate.kl_per_dimension and active_units, which serve such priors"
        )


def _factorises(distribution: Any) -> bool:
    """Whether `dimension_log_probs` can tell the dimensions of a distribution apart."""

    def parts(key: Key) -> Array | None:
        z = distribution.sample_and_log_prob(seed=key, sample_shape=())[0]
        return dimension_log_probs(distribution, z)

    return jax.eval_shape(parts, jax.random.key(0)) is not None


def dimension_log_probs(distribution: Any, z: Any) -> Array | None:
    """log q(z_d) ``[..., D]`` of independent dimensions (of one-hot latents, groups), whose sum is log q(z); None for dependent ones."""
    known = factors(distribution)
    ndims = 0
    base = distribution
    while isinstance(base, distrax.Independent):
        ndims, base = ndims + base.reinterpreted_batch_ndims, base.distribution
    if known is not None:
        parts, ndims = log_prob_entries(known, z), known.event_ndims - known.categorical
    elif isinstance(base, Binomial):
        parts, ndims = Binomial(base.total_count, base.logits, 0).log_prob(z), ndims + base.event_ndims
    elif getattr(base, "event_shape", None) == ():
        parts = base.log_prob(z)
    elif math.prod(getattr(distribution, "event_shape", (0,))) == 1:
        parts, ndims = distribution.log_prob(z), 0
    else:
        return None
    return parts.reshape(*parts.shape[: parts.ndim - ndims], -1)


def log_weights(count: int, size: int) -> tuple[float, float]:
    """log of the weights of a draw's own component and of each other one of its part, of M of N components."""
    return -math.log(count), math.log(count - 1) - math.log(count) - math.log(size - 1)


@functools.partial(compilation.static_jit, num_static=3, compiler=jax.jit)
def _compiled(model: Model, num_samples: int, size: int, params: Params, key: Key, examples: Batch) -> _Terms:
    draw_key, order_key = jax.random.split(key)
    count = len(examples.x)
    prior = call(model.prior, params, context=examples.context, mask=examples.mask)

    def draw(item: tuple[Key, Batch]) -> tuple[_Draws, Array]:
        posterior = encode(model, params, alone(item[1]))
        checks.log_prob(posterior, "aggregate")
        z, log_prob = posterior.sample_and_log_prob(seed=item[0], sample_shape=(num_samples,))
        drawn = _Draws(z, log_prob, dimension_log_probs(posterior, z))
        return jax.tree.map(lambda leaf: leaf[:, 0], drawn), prior.log_prob(z)[:, 0]

    draws, log_prior = by_single(draw, (jax.random.split(draw_key, count), examples), examples)
    order = jnp.arange(count) if size == count else jax.random.permutation(order_key, count)
    # The last part is filled up with examples of the one before it, whose own draws count there.
    starts = np.minimum(np.arange(0, count, size), count - size)
    members = order[starts[:, None] + np.arange(size)]
    place = np.arange(count) // size
    place = place * size + np.arange(count) - starts[place]

    def part(index: Array) -> tuple[Array, Array | None]:
        own, components = jax.tree.map(lambda leaf: leaf[index], (draws, examples))
        return log_shares(model, params, own, components, count)

    def in_order(values: Array) -> Array:
        return jnp.zeros_like(draws.log_prob).at[order].set(values.reshape(-1, num_samples)[place])

    return _Terms(draws.log_prob, log_prior, *jax.tree.map(in_order, jax.lax.map(part, members)))


def log_shares(
    model: Model, params: Params, draws: _Draws, components: Batch, count: int
) -> tuple[Array, Array | None]:
    """log q(z) − log q(z|x), and Σ_d of the same for each z_d, ``[M, K]``, for the draws of M of N examples.

    The weights of the components, where they have any, have the mean 1 over all N. In differences
    from the draw's own component, which is exactly 0 among them: rounding cannot undercut −log N.
    """
    size, num_samples = draws.log_prob.shape
    chunk = min(size, _COMPONENTS)
    positions = jnp.arange(-(-size // chunk) * chunk).reshape(-1, chunk)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws)
    owners = jnp.repeat(jnp.arange(size), num_samples)
    entries = sum(leaf.size for leaf in jax.tree.leaves(flat.z)) // len(owners)
    side = max(1, min(len(owners), budget() // (chunk * max(entries, 1))))
    log_weight = None if components.weight is None else jnp.log(components.weight)

    def more(sums: tuple[Array, Array | None], position: Array) -> tuple[tuple[Array, Array | None], None]:
        chosen = jax.tree.map(lambda leaf: leaf[jnp.minimum(position, size - 1)], components)
        posterior = encode(model, params, chosen)

        def add(item: tuple[Array, _Draws, tuple[Array, Array | None]]) -> tuple[Array, Array | None]:
            owner, draw, running = item
            ratios = _log_ratios(posterior, draw, chunk)
            other = (position != owner) & (position < size)
            if log_weight is not None:
                own = log_weight[jnp.minimum(position, size - 1)]
                ratios = jax.tree.map(lambda r: broadcasts(jnp.add)(r.T, own).T, ratios)
            return jax.tree.map(lambda so_far, r: jnp.logaddexp(so_far, _log_sum(r, other)), running, ratios)

        return jax.lax.map(add, (owners, flat, sums), batch_size=side), None

    none = jax.tree.map(lambda leaf: jnp.full_like(leaf, -jnp.inf), (flat.log_prob, flat.parts))
    others, _ = jax.lax.scan(more, none, positions)
    own_weight, other_weight = log_weights(count, size)
    own = own_weight + (jnp.zeros(len(owners)) if log_weight is None else log_weight[owners])
    joint, parts = jax.tree.map(lambda s: broadcasts(jnp.logaddexp)(own, other_weight + s.T).T, others)
    parts = None if parts is None else parts.sum(-1).reshape(size, num_samples)
    return joint.reshape(size, num_samples), parts


def _log_ratios(posterior: Any, draw: _Draws, count: int) -> tuple[Array, Array | None]:
    """log q(z|x_n) − log q(z|x) of one draw for each component ``[count]``, and by dimension ``[count, D]``."""
    z = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (1, count, *leaf.shape)), draw.z)
    parts = dimension_log_probs(posterior, z)
    if parts is None or draw.parts is None:
        return (posterior.log_prob(z)[0] - draw.log_prob).astype(draw.log_prob.dtype), None
    by_dimension = (parts[0] - draw.parts[None]).astype(draw.log_prob.dtype)
    return by_dimension.sum(-1), by_dimension


def _log_sum(log_ratios: Array, chosen: Array) -> Array:
    mask = chosen.reshape(-1, *(1,) * (log_ratios.ndim - 1))
    return jax.nn.logsumexp(jnp.where(mask, log_ratios, -jnp.inf), axis=0)
