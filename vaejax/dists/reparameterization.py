"""What reparameterises, and how: draws written as differentiable functions of parameter-free noise.

distrax marks every family ``NOT_REPARAMETERIZED``, so vaejax keeps its own record. Two routes (Kingma & Welling 2014,
section 2.4): location–scale, z = loc + scale · ε, and the inverse distribution function, z = F⁻¹(u). `from_noise` gives
both from the same uniform noise u, which is what quasi-random, antithetic and coupled noise need.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from vaejax.dists.backend import distrax
from vaejax.dists.bernoulli import Binomial
from vaejax.dists.categorical import OneHotCategorical
from vaejax.dists.gaussian import MultivariateNormal
from vaejax.dists.univariate import Cauchy, Kumaraswamy, LogNormal, Poisson
from vaejax.linalg import solve_tril
from vaejax.numerics import broadcasts
from vaejax.types import Array


def _laplace(q: Any, u: Array) -> Array:
    # The smaller tail, exactly: 1 − 2|u − ½| would round to zero there.
    return q.loc - q.scale * jnp.sign(u - 0.5) * jnp.log(2 * jnp.minimum(u, 1 - u))


# Families that transform noise: type -> (distribution, uniform noise of the sample's shape) -> sample.
_FROM_NOISE: dict[type, Callable[[Any, Array], Array]] = {
    distrax.Normal: lambda q, u: q.loc + q.scale * ndtri(u),
    distrax.Laplace: _laplace,
    distrax.Logistic: lambda q, u: q.loc + q.scale * (jnp.log(u) - jnp.log1p(-u)),
    distrax.Gumbel: lambda q, u: q.loc - q.scale * jnp.log(-jnp.log(u)),
    distrax.Uniform: lambda q, u: q.low + (q.high - q.low) * u,
    Cauchy: lambda q, u: q.quantile(u),
    LogNormal: lambda q, u: q.quantile(u),
    Kumaraswamy: lambda q, u: q.quantile(u),
    MultivariateNormal: lambda q, u: q.from_standard(ndtri(u)),
}

# Families whose sampler is differentiated implicitly (Figurnov et al. 2018) or is a differentiable map of such draws.
_IMPLICIT = (
    distrax.Gamma,
    distrax.Beta,
    distrax.Dirichlet,
    distrax.MultivariateNormalFromBijector,
)

# Discrete families, and continuous ones whose sampler jumps.
_NOT = (
    Binomial,
    OneHotCategorical,
    Poisson,
    distrax.Bernoulli,
    distrax.Categorical,
    distrax.OneHotCategorical,
    distrax.Multinomial,
    distrax.Quantized,
    distrax.MixtureSameFamily,
    distrax.MixtureOfTwo,
)


def is_reparameterized(distribution: Any) -> bool | None:
    """Whether the gradient of a draw with respect to the parameters is the pathwise gradient.

    Looks through ``Independent``, ``Transformed`` and ``Joint``. A distribution of one's own answers through an attribute
    ``reparameterized``; without it, and for a family that is not on record, the answer is None.

    Examples:
        >>> from vaejax.dists.backend import distrax
        >>> is_reparameterized(distrax.Normal(0.0, 1.0)), is_reparameterized(distrax.Categorical(logits=[0.0, 1.0]))
        (True, False)
    """
    own = getattr(distribution, "reparameterized", None)
    if isinstance(own, bool):
        return own
    if isinstance(distribution, distrax.Joint):
        parts = jax.tree.leaves(distribution.distributions, is_leaf=lambda d: isinstance(d, distrax.Distribution))
        answers = [is_reparameterized(part) for part in parts]
        return False if False in answers else None if None in answers else True
    if isinstance(distribution, (*_FROM_NOISE, *_IMPLICIT)):
        return True
    if isinstance(distribution, _NOT):
        return False
    if isinstance(distribution, distrax.Independent | distrax.Transformed):
        return is_reparameterized(distribution.distribution)
    if isinstance(distribution, distrax.Distribution) and type(distribution).__name__ != "DistributionFromTFP":
        return None
    # TFP's own distributions do keep a record; wrapped by distrax they forward it.
    record = repr(getattr(distribution, "reparameterization_type", ""))
    return True if "FULLY_REPARAMETERIZED" in record else False if "NOT_REPARAMETERIZED" in record else None


def has_fixed_support(distribution: Any) -> bool:
    """Whether the support stays where it is when the parameters move, so that the score E ∂log q = 0.

    A distribution of one's own answers through an attribute ``fixed_support``; else it is taken to be fixed.

    Examples:
        >>> from vaejax.dists.backend import distrax
        >>> has_fixed_support(distrax.Normal(0.0, 1.0)), has_fixed_support(distrax.Uniform(0.0, 1.0))
        (True, False)
    """
    own = getattr(distribution, "fixed_support", None)
    if isinstance(own, bool):
        return own
    if isinstance(distribution, distrax.Joint):
        parts = jax.tree.leaves(distribution.distributions, is_leaf=lambda d: isinstance(d, distrax.Distribution))
        return all(has_fixed_support(part) for part in parts)
    if isinstance(distribution, distrax.Independent | distrax.Transformed):
        return has_fixed_support(distribution.distribution)
    return not isinstance(distribution, distrax.Uniform)


@broadcasts
def from_noise(distribution: Any, u: Array) -> Array:
    """The draw that uniform noise ``u`` in (0, 1) stands for: z = F⁻¹(u), entry by entry.

    Args:
        distribution: a family on record, or ``Independent`` of one, or an object with its own ``from_noise``.
        u: ``[..., *batch, *event]``.

    Returns:
        z of the shape of ``u``, differentiable in the distribution's parameters.

    Raises:
        TypeError: for a family that has no such map, naming it.

    Examples:
        >>> from vaejax.dists.backend import distrax
        >>> float(from_noise(distrax.Logistic(1.0, 2.0), jnp.array(0.5)))
        1.0
    """
    if hasattr(distribution, "from_noise"):
        return distribution.from_noise(u)
    if isinstance(distribution, distrax.Independent):
        return from_noise(distribution.distribution, u)
    for family, transform in _FROM_NOISE.items():
        if isinstance(distribution, family):
            return transform(distribution, jnp.asarray(u))
    known = ", ".join(family.__name__ for family in _FROM_NOISE)
    raise TypeError(
        f"{type(distribution).__name__} has no map from uniform noise (known: {known}); give it a from_noise(u) method"
    )


@broadcasts
def reparameterized_at(distribution: Any, z: Array) -> Array:
    """z itself, as the differentiable function T(ε; parameters) of the distribution's parameters with ε = T⁻¹(z) held fixed.

    Args:
        distribution: location–scale (Normal, Laplace, Logistic, Gumbel, Cauchy), `MultivariateNormal`, or ``Independent`` of one.
        z: ``[..., *batch, *event]``; gradients do not flow back into it.

    Raises:
        TypeError: for another family, naming it.

    Source:
        Bauer & Mnih 2021, section 3.

    Examples:
        >>> import jax
        >>> from vaejax.dists.backend import distrax
        >>> float(jax.grad(lambda scale: reparameterized_at(distrax.Normal(1.0, scale), jnp.array(7.0)))(2.0))
        3.0
    """
    if isinstance(distribution, distrax.Independent):
        return reparameterized_at(distribution.distribution, z)
    if isinstance(distribution, MultivariateNormal):
        white = solve_tril(distribution.scale_tril, z - distribution.loc)
        return distribution.from_standard(jax.lax.stop_gradient(white))
    if isinstance(distribution, (distrax.Normal, distrax.Laplace, distrax.Logistic, distrax.Gumbel, Cauchy)):
        return distribution.loc + distribution.scale * jax.lax.stop_gradient(
            (z - distribution.loc) / distribution.scale
        )
    raise TypeError(
        f"{type(distribution).__name__} cannot be reparameterised at a given value; use a location–scale family such as "
        "vaejax.dists.diagonal_normal"
    )
