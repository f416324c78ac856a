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


def at_own(model: Model, family: Family) -> Model:
    """The model with a q that is built from numbers of each example's own, which travel with it: contexts are (numbers, context)."""
    posterior: Any = _Built(family)
    prior: Any = _Inner(model.prior)
    likelihood: Any = _Inner(model.likelihood)
    return model._replace(posterior=posterior, prior=prior, likelihood=likelihood, check=None)


class _Built(NamedTuple):
    """A posterior from the first part of the context. A NamedTuple, so that it compares by content as a static argument."""

    family: Family

    def __call__(self, params: Params, x: Array, context: Any) -> Any:
        return self.family.build(context[0])


class _Inner(NamedTuple):
    """A model function of the second part of the context."""

    function: Callable

    def __call__(self, *args: Any, context: Any, **options: Any) -> Any:
        return call(self.function, *args, context=context[1], **options)

    @property
    def __signature__(self) -> inspect.Signature:
        return _inner_signature(self.function)


def _inner_signature(function: Callable) -> inspect.Signature:
    """Keeps readable what the function declares beside the context (mask, key)."""
    signature = inspect.signature(function)
    others = [p for p in signature.parameters.values() if p.name != "context" and p.kind is not p.VAR_KEYWORD]
    rest = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY)
    declared = [p.replace(default=p.empty) if p.kind is not p.KEYWORD_ONLY else p for p in others]
    return signature.replace(parameters=[*declared, context, *rest])
