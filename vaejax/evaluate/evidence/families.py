"""Families of distributions that one example's q is chosen from."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from vaejax.dists import MultivariateNormal, diagonal_normal
from vaejax.numerics import broadcasts
from vaejax.types import Array, Model, Params, call


class Family(NamedTuple):
    """Distributions that q is chosen from, one set of free numbers an example.

    Attributes:
        begin: encoder's q(z|x) -> the numbers to begin with, a pytree of arrays that lead with the batch.
        build: numbers -> distribution.
    """

    begin: Callable[[Any], Any]
    build: Callable[[Any], Any]


@functools.lru_cache(maxsize=8)
def mean_field(num_event_axes: int = 1) -> Family:
    """N(loc, diag(scale²)), beginning at the encoder's means and standard deviations."""

    def begin(q: Any) -> dict[str, Array]:
        loc, variance = _moments(q)
        return {"loc": loc, "log_scale": 0.5 * jnp.log(variance)}

    return Family(
        begin, lambda own: diagonal_normal(own["loc"], log_scale=own["log_scale"], event_ndims=num_event_axes)
    )


@functools.lru_cache(maxsize=8)
def full_covariance() -> Family:
    """N(loc, L Lᵀ), an affine flow of all latents, beginning without correlation at the encoder's means and standard deviations."""

    def begin(q: Any) -> dict[str, Array]:
        loc, variance = _moments(q)
        return {"loc": loc, "log_diagonal": 0.5 * jnp.log(variance), "below": jnp.zeros((*loc.shape, loc.shape[-1]))}

    @broadcasts
    def build(own: Any) -> MultivariateNormal:
        scale = jnp.exp(own["log_diagonal"])
        # Below the diagonal in units of it, so that one learning rate serves narrow and wide latents.
        unit = jnp.tril(own["below"], -1) + jnp.eye(scale.shape[-1], dtype=scale.dtype)
        return MultivariateNormal(own["loc"], scale[..., None] * unit)

    return Family(begin, build)


def _moments(q: Any) -> tuple[Array, Array]:
    try:
        return q.mean(), q.variance()
    except (AttributeError, NotImplementedError):
        raise TypeError(
            f"q(z|x) is {type(q).__name__}, which knows no mean or variance to begin the search at; give a vaejax.evaluate.Family whose "
            "begin needs none"
        ) from None


@functools.lru_cache(maxsize=8)
def at_own(model: Model, family: Family) -> Model:
    """The model with a q that is built from numbers of each example's own, which travel with it: contexts are (numbers, context)."""

    def posterior(params: Params, x: Array, context: Any) -> Any:
        return family.build(context[0])

    return model._replace(
        posterior=posterior, prior=_inner(model.prior), likelihood=_inner(model.likelihood), check=None
    )


def _inner(function: Callable) -> Callable:
    """A model function that is given its own part of the context."""

    def with_its_own(*args: Any, context: Any, **options: Any) -> Any:
        return call(function, *args, context=context[1], **options)

    # What the function declares beside the context (mask, key) must stay readable.
    signature = inspect.signature(function)
    others = [p for p in signature.parameters.values() if p.name != "context" and p.kind is not p.VAR_KEYWORD]
    rest = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY)
    declared = [p.replace(default=p.empty) if p.kind is not p.KEYWORD_ONLY else p for p in others]
    with_its_own.__signature__ = signature.replace(parameters=[*declared, context, *rest])  # type: ignore[attr-defined]
    return with_its_own
