"""Likelihood families: how a decoder's raw output becomes p(x|z), where it starts, and which data it may meet.

Each family is a `Likelihood`. A decoder gives ``[..., *x_shape]`` raw numbers, or ``[..., *x_shape, outputs]`` where the
family needs more than one for an entry of x.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.dists.backend import Distribution, distrax
from vaejax.dists.bernoulli import Bernoulli, Binomial
from vaejax.dists.gaussian import diagonal_normal
from vaejax.dists.univariate import Poisson
from vaejax.types import Array, Params, default_float


class Likelihood(NamedTuple):
    """A family p(x|z) with independent entries.

    Attributes:
        name: the family's name.
        outputs: raw numbers for each entry of x; with 1 the decoder's output has no extra axis.
        init: ``(x_shape, x=None, mask=None) -> `` the family's own parameters (a shared σ), a dict; with data ``x [n, *x_shape]`` they
            start at its scale.
        distribution: ``(params, raw, event_ndims) -> `` distribution.
        bias: ``(x, mask) -> `` raw output at which the family's mean is that of the data ``x [n, *x_shape]``. Here and in ``init`` the
            mask of data with weights is not bool: it holds the weight of each entry, 0 where it is missing.
        check: ``(x, mask) -> None``, raises where a concrete x lies outside the family's support.
    """

    name: str
    outputs: int
    init: Callable[..., Params]
    distribution: Callable[[Params, Array, int], Distribution]
    bias: Callable[[Array, Array | None], Array]
    check: Callable[[Any, Any], None]


def _no_params(x_shape: tuple[int, ...], x: Array | None = None, mask: Array | None = None) -> Params:
    return {}


def mean_of_observed(x: Array, mask: Array | None, *, prior: float = 0.0) -> Array:
    """Mean over examples, drawn towards ``prior`` by the weight of one example so that no logit is infinite.

    ``mask`` is bool, or holds the weight of each entry.
    """
    x = jnp.asarray(x).astype(default_float())
    seen = jnp.ones_like(x) if mask is None else mask.astype(x.dtype)
    pseudo = 1.0 if prior else 0.0
    total = jnp.sum(seen, 0) + pseudo
    return (jnp.sum(x * seen, 0) + pseudo * prior) / jnp.where(total > 0, total, 1)


def _logit(p: Array) -> Array:
    return jnp.log(p) - jnp.log1p(-p)


def _inverse_softplus(y: Array) -> Array:
    return y + jnp.log(-jnp.expm1(-y))


def _spread(x: Array, mask: Array | None) -> Array:
    """Root mean square distance of all entries from their own means: the σ of a decoder that knows the means alone."""
    seen = jnp.ones(x.shape, default_float()) if mask is None else mask.astype(default_float())
    distances = jnp.where(seen > 0, jnp.asarray(x).astype(default_float()) - mean_of_observed(x, mask), 0.0)
    # In units of the largest: squares of data near 1e20 would overflow, those of data near 1e-20 vanish.
    largest = jnp.max(jnp.abs(distances), initial=0.0)
    unit, total = jnp.where(largest > 0, largest, 1), jnp.sum(seen)
    return unit * jnp.sqrt(jnp.sum(seen * (distances / unit) ** 2) / jnp.where(total > 0, total, 1))


def bernoulli(*, fractional: bool = False) -> Likelihood:
    """Binary data from logits.

    Args:
        fractional: accept values inside (0, 1) too, read as a cross-entropy. It is no density of such data, and
            likelihoods of grey images under it mean nothing; binarise instead (`vaejax.data.binarize`) where a number is wanted.
    """

    def check(x: Any, mask: Any) -> None:
        if fractional:
            checks.values(
                x, lambda v: (v >= 0) & (v <= 1), "data for a fractional Bernoulli likelihood", "values in [0, 1]", mask
            )
        else:
            checks.values(
                x,
                lambda v: (v == 0) | (v == 1),
                "data for a Bernoulli likelihood",
                "only 0 and 1 (binarise with vaejax.data.binarize, or use likelihoods.bernoulli(fractional=True))",
                mask,
            )

    return Likelihood(
        "bernoulli",
        1,
        _no_params,
        lambda _, raw, n: Bernoulli(raw, n),
        lambda x, mask: _logit(mean_of_observed(x, mask, prior=0.5)),
        check,
    )


def binomial(total_count: int) -> Likelihood:
    """Counts from 0 to ``total_count`` from logits: grey levels, or items right out of n."""
    total = checks.positive_int(total_count, "total_count")

    def check(x: Any, mask: Any) -> None:
        checks.values(
            x,
            lambda v: (v >= 0) & (v <= total) & (v == v.round()),
            "data for a binomial likelihood",
            f"integers from 0 to {total}",
            mask,
        )

    def bias(x: Array, mask: Array | None) -> Array:
        return _logit(mean_of_observed(jnp.asarray(x).astype(default_float()) / total, mask, prior=0.5))

    return Likelihood("binomial", 1, _no_params, lambda _, raw, n: Binomial(total, raw, n), bias, check)


def poisson() -> Likelihood:
    """Counts with rate exp(raw)."""

    def check(x: Any, mask: Any) -> None:
        checks.values(
            x, lambda v: (v >= 0) & (v == v.round()), "data for a Poisson likelihood", "integers of at least 0", mask
        )

    def bias(x: Array, mask: Array | None) -> Array:
        return jnp.log(mean_of_observed(x, mask, prior=0.5))

    return Likelihood("poisson", 1, _no_params, lambda _, raw, n: distrax.Independent(Poisson(raw), n), bias, check)


def categorical(num_classes: int) -> Likelihood:
    """One of ``num_classes`` labels 0, 1, … an entry, from logits ``[..., *x_shape, num_classes]``."""
    classes = checks.positive_int(num_classes, "num_classes")
    if classes < 2:
        raise ValueError("num_classes must be at least 2, got 1; a single class carries no information")

    def check(x: Any, mask: Any) -> None:
        wanted = f"integers from 0 to {classes - 1}"
        checks.values(
            x, lambda v: (v >= 0) & (v < classes) & (v == v.round()), "data for a categorical likelihood", wanted, mask
        )

    def bias(x: Array, mask: Array | None) -> Array:
        one_hot = jax.nn.one_hot(jnp.asarray(x).astype(jnp.int32), classes)
        return jnp.log(mean_of_observed(one_hot, None if mask is None else mask[..., None], prior=1 / classes))

    def distribution(_: Params, raw: Array, event_ndims: int) -> Distribution:
        return distrax.Independent(_Categorical(raw), event_ndims)

    return Likelihood("categorical", classes, _no_params, distribution, bias, check)


class _Categorical(distrax.Categorical):
    """distrax's, taking labels of any numeric type (data arrive as uint8 or float)."""

    def __init__(self, logits: Array):
        # A logit of +∞ is a certain class, for which log softmax would give NaN.
        super().__init__(logits=jnp.minimum(logits, jnp.finfo(logits.dtype).max))

    def log_prob(self, value: Array) -> Array:
        log_p = super().log_prob(jnp.asarray(value).astype(jnp.int32))
        return jnp.where(log_p <= float(jnp.finfo(log_p.dtype).min) / 2, -jnp.inf, log_p)


def normal(scale: float | str = "shared", *, floor: float = 1e-3) -> Likelihood:
    """N(mean(z), σ²) with σ fixed, learned, or a function of z.

    As σ → 0 on data that the mean can reproduce the likelihood grows without bound (a constant pixel is enough), so a learned
    σ = floor + softplus(raw) never falls below ``floor``; a fitted σ at the floor means that the number says nothing. It starts at the
    spread of the data about the means of their entries: far above that, the KL outweighs the reconstruction and the posterior collapses.

    Args:
        scale: a number fixes σ; ``"shared"`` learns one for all entries, ``"per_dimension"`` one for each entry of x,
            ``"per_example"`` lets the decoder give σ(z) for each entry.
        floor: the smallest learned σ, in the units of the data.
    """
    checks.real(floor, "floor", minimum=0.0)
    if not isinstance(scale, str):
        fixed = float(checks.real(scale, "scale", minimum=0.0, open_minimum=True))
        return Likelihood(
            "normal",
            1,
            _no_params,
            lambda _, raw, n: diagonal_normal(raw, jnp.asarray(fixed, raw.dtype), event_ndims=n),
            mean_of_observed,
            _real_valued,
        )
    checks.one_of(scale, "scale", ("shared", "per_dimension", "per_example"))

    def squash(raw: Array) -> Array:
        return floor + jax.nn.softplus(raw)

    def start(x: Array | None, mask: Array | None) -> Array:
        spread = jnp.ones((), default_float()) if x is None else _spread(x, mask)
        # Data without any spread start at twice the floor.
        return _inverse_softplus(jnp.maximum(spread - floor, max(floor, 1e-6)))

    if scale == "per_example":

        def bias(x: Array, mask: Array | None) -> Array:
            mean = mean_of_observed(x, mask)
            return jnp.stack([mean, jnp.full_like(mean, start(x, mask))], -1)

        return Likelihood(
            "normal",
            2,
            _no_params,
            lambda _, raw, n: diagonal_normal(raw[..., 0], squash(raw[..., 1]), event_ndims=n),
            bias,
            _real_valued,
        )

    def init(x_shape: tuple[int, ...], x: Array | None = None, mask: Array | None = None) -> Params:
        return {"raw_scale": jnp.full(x_shape if scale == "per_dimension" else (), start(x, mask), default_float())}

    return Likelihood(
        "normal",
        1,
        init,
        lambda params, raw, n: diagonal_normal(raw, squash(params["raw_scale"]), event_ndims=n),
        mean_of_observed,
        _real_valued,
    )


def _real_valued(x: Any, mask: Any) -> None:
    checks.finite(jnp.asarray(x) if checks.is_concrete(x) else x, "data for a normal likelihood", mask)


_BY_NAME: dict[str, Callable[[], Likelihood]] = {"bernoulli": bernoulli, "normal": normal, "poisson": poisson}
_WITH_SIZE = {"binomial": "binomial(total_count)", "categorical": "categorical(num_classes)"}


def resolve(likelihood: str | Likelihood) -> Likelihood:
    """A `Likelihood` as it is, or by the name of a family that needs no size.

    Raises:
        ValueError: for an unknown name (the nearest is suggested), or a family that needs a size.
        TypeError: for anything else.
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if not isinstance(likelihood, str):
        raise TypeError(
            f"likelihood must be a name or a Likelihood from vaejax.dists.likelihoods, got {type(likelihood).__name__}"
        )
    name = checks.one_of(likelihood, "likelihood", [*_BY_NAME, *_WITH_SIZE])
    if name in _WITH_SIZE:
        raise ValueError(f"the {name} likelihood needs a size: pass vaejax.dists.likelihoods.{_WITH_SIZE[name]}")
    return _BY_NAME[name]()
