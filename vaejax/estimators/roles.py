"""The four places where params enter a log-weight, told apart so that each can be differentiated, or stopped, on its own.

log w = log p(x|z; likelihood) + log p(z; prior) − log q(z|x; score) at a draw z = g(ε; sample, x). Stopping goes through the
params, never through a distribution's leaves.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from vaejax.dists import SplitPosterior
from vaejax.types import Model, Params


class Roles(NamedTuple):
    """Params by what they do in a log-weight.

    Attributes:
        sample: move the draws.
        score: give log q(z|x).
        prior: give log p(z).
        likelihood: give log p(x|z).
    """

    sample: Params
    score: Params
    prior: Params
    likelihood: Params


def together(params: Params) -> Roles:
    """The same params in every role."""
    return Roles(params, params, params, params)


def sticking(params: Params) -> Roles:
    """Every role but the score, whose mean is zero and which is stopped (Roeder, Wu & Duvenaud 2017)."""
    return Roles(params, jax.lax.stop_gradient(params), params, params)


def encoder_decoder(encoder: Params, decoder: Params) -> Roles:
    """Params as the posterior uses them, and as prior and likelihood do."""
    return Roles(encoder, encoder, decoder, decoder)


def by_roles(model: Model, *, noise: str = "independent", given: Any = None) -> Model:
    """The model as functions of `Roles` in place of params; its draws come with ``noise``, or are ``given``."""

    @functools.wraps(model.posterior)
    def posterior(roles: Roles, *args: Any, **options: Any) -> SplitPosterior:
        drawn = model.posterior(roles.sample, *args, **options)
        scored = drawn if roles.score is roles.sample else model.posterior(roles.score, *args, **options)
        return SplitPosterior(drawn, scored, noise, given)

    return model._replace(
        posterior=posterior, prior=_for_role(model.prior, "prior"), likelihood=_for_role(model.likelihood, "likelihood")
    )


def _for_role(function: Callable, role: str) -> Callable:
    # wraps: what a model function declares (mask, key, context) must stay readable.
    @functools.wraps(function)
    def on_roles(roles: Roles, *args: Any, **options: Any) -> Any:
        return function(getattr(roles, role), *args, **options)

    return on_roles
