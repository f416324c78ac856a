"""Latents in layers, each drawn given those before it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from vaejax.dists.split import SplitPosterior
from vaejax.types import Array, Key


@jax.tree_util.register_pytree_node_class
class Chain:
    """A distribution over a tuple of layers, ∏_l p(z_l | the layers drawn before it).

    A pytree, to pass out of ``jit`` and ``vmap``, where its conditionals are `jax.tree_util.Partial` of arrays; plain closures do for
    everything else.

    Args:
        conditionals: ``conditionals[i](parents) -> distribution`` of the i-th layer drawn, given the tuple of those drawn before;
            ``conditionals[0](())`` has the shape of the batch. A layer that does not depend on its parents is drawn anew for each sample.
        order: the place in the tuple of each layer in the order of drawing; None draws the first first. A generative model from
            the top down over latents that the encoder draws from the bottom up is ``Chain((top, bottom_given_top), order=(1, 0))``.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from vaejax.dists import Bernoulli
        >>> chain = Chain([lambda _: Bernoulli(jnp.zeros((5, 3))), lambda above: Bernoulli(2 * above[0] - 1)])
        >>> (first, second), log_prob = chain.sample_and_log_prob(seed=jax.random.key(0), sample_shape=(4,))
        >>> first.shape, second.shape, log_prob.shape
        ((4, 5, 3), (4, 5, 3), (4, 5))
    """

    def __init__(self, conditionals: Sequence[Callable[[tuple], Any]], order: Sequence[int] | None = None):
        self.conditionals = _functions(conditionals)
        self.order = tuple(range(len(self.conditionals))) if order is None else tuple(order)
        if sorted(self.order) != list(range(len(self.conditionals))):
            raise ValueError(
                f"order must name each of the {len(self.conditionals)} layers once, from 0, got {self.order}"
            )

    def tree_flatten(self) -> tuple[tuple, tuple[int, ...]]:
        """The conditionals, and the order."""
        return self.conditionals, self.order

    @classmethod
    def tree_unflatten(cls, order: tuple[int, ...], conditionals: tuple) -> "Chain":
        """From `tree_flatten`."""
        # JAX puts placeholders where functions were: nothing to check.
        chain = object.__new__(cls)
        chain.conditionals, chain.order = conditionals, order
        return chain

    def sample_and_log_prob(self, *, seed: Key, sample_shape: tuple[int, ...] = ()) -> tuple[tuple, Array]:
        """A tuple of layers ``[*sample, *batch, *event]`` and its log-probability ``[*sample, *batch]``."""
        terms = []

        def draw(layer: Any, key: Key, shape: tuple[int, ...]) -> Any:
            z, term = layer.sample_and_log_prob(seed=key, sample_shape=shape)
            terms.append(term)
            return z

        return draw_layers(self, seed, sample_shape, draw), sum(terms)

    def sample(self, *, seed: Key, sample_shape: tuple[int, ...] = ()) -> tuple:
        """A tuple of layers."""
        return self.sample_and_log_prob(seed=seed, sample_shape=sample_shape)[0]

    def log_prob_parts(self, z: tuple) -> tuple[Array, ...]:
        """log p(z_l | the layers drawn before it) for each layer of the tuple, ``[*sample, *batch]`` each."""
        return tuple(layer.log_prob(value) for layer, value in layers(self, z))

    def log_prob(self, z: tuple) -> Array:
        """The sum of `log_prob_parts`."""
        return sum(self.log_prob_parts(z))  # type: ignore[return-value]


def _functions(conditionals: Any) -> tuple:
    layers = tuple(conditionals) if isinstance(conditionals, tuple | list) else None
    if not layers or not all(callable(layer) for layer in layers):
        came = (
            type(conditionals).__name__
            if layers is None
            else f"[{', '.join(type(layer).__name__ for layer in layers)}]"
        )
        raise TypeError(
            f"a Chain is made of functions of the tuple of layers drawn before, got {came}; write Chain([lambda _: top, lambda above: …])"
        )
    return layers


def drawing_order(distribution: Any, count: int) -> tuple[int, ...]:
    """The place in the tuple of latents of each layer, in the order of drawing."""
    return tuple(getattr(distribution, "order", range(count)))


def layers(distribution: Any, z: Any) -> list[tuple[Any, Any]]:
    """Each layer of a distribution, given the values of the layers drawn before it, with its own value, in the order of the latents.

    A distribution without ``conditionals`` is one layer, its latents whatever pytree it draws.
    """
    if isinstance(distribution, SplitPosterior):
        return layers(distribution.scored, z)
    conditionals = getattr(distribution, "conditionals", None)
    if conditionals is None:
        return [(distribution, z)]
    if not isinstance(z, tuple) or len(z) != len(conditionals):
        came = f"a tuple of {len(z)}" if isinstance(z, tuple) else type(z).__name__
        raise ValueError(
            f"a chain of {len(conditionals)} layers takes a tuple of as many latents, got {came}; posterior and prior must have the same "
            "layers"
        )
    order = drawing_order(distribution, len(z))
    found = {}
    for step, index in enumerate(order):
        found[index] = conditionals[step](tuple(z[i] for i in order[:step]))
    return [(found[i], z[i]) for i in range(len(z))]


def draw_layers(
    distribution: Any,
    key: Key,
    sample_shape: tuple[int, ...],
    draw: Callable[[Any, Key, tuple[int, ...]], Any],
    parent: Callable[[Any], Any] = lambda value: value,
) -> Any:
    """The latents that ``draw(layer, key, sample_shape)`` draws layer by layer, in the order of the latents.

    ``parent`` says what the layers below see of a draw. A layer that depends on its parents has the sample axes already.
    """
    conditionals = getattr(distribution, "conditionals", None)
    if conditionals is None:
        return draw(distribution, key, sample_shape)
    drawn: list = []
    batch_ndims = None
    for conditional, layer_key in zip(conditionals, jax.random.split(key, len(conditionals))):
        layer = conditional(tuple(parent(value) for value in drawn))
        batch_ndims = len(layer.batch_shape) if batch_ndims is None else batch_ndims
        drawn.append(draw(layer, layer_key, sample_shape if len(layer.batch_shape) == batch_ndims else ()))
    order = drawing_order(distribution, len(drawn))
    return tuple(drawn[order.index(i)] for i in range(len(drawn)))
