"""Small models whose expectations over the latents are sums (and one quadrature): objective and gradient are known exactly."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from vaejax.dists import Bernoulli, Chain, OneHotCategorical, diagonal_normal

X = np.array([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]])


class Enumerable(NamedTuple):
    """A model with every latent configuration that carries weight, and its params at two points."""

    model: vaejax.Model
    points: dict
    elbo: object  # params -> [*batch], exact


def weights(key, *shapes, scale=1.0):
    return [
        scale * jax.random.normal(k, shape, jnp.float64) for k, shape in zip(jax.random.split(key, len(shapes)), shapes)
    ]


def sum_over(model, states):
    """params -> Σ_z q(z|x)(log p(x, z) − log q(z|x)), ``states`` a pytree with one row for each z."""

    def value(params):
        z = jax.tree.map(over_batch, states)
        log_q = model.posterior(params, X).log_prob(z)
        log_joint = model.likelihood(params, z).log_prob(X) + model.prior(params).log_prob(z)
        return jnp.sum(jnp.exp(log_q) * (log_joint - log_q), 0)

    return value


def over_batch(states):
    """``[S, *event]`` as ``[S, *batch, *event]``."""
    states = jnp.asarray(states)
    return jnp.broadcast_to(states[:, None], (len(states), len(X), *states.shape[1:]))


def binary(count):
    return np.array(list(itertools.product([0.0, 1.0], repeat=count)))


def one_layer(kind, size, seed):
    """``size`` Bernoullis, or ``size`` groups of 4 categories, with a nonlinear decoder."""
    event = (size,) if kind == "bernoulli" else (size, 4)
    flat = int(np.prod(event))
    keys = jax.random.split(jax.random.key(seed), 2)

    def family(logits):
        return Bernoulli(logits) if kind == "bernoulli" else OneHotCategorical(logits, event_ndims=2)

    def params(key, scale):
        w = weights(key, (4, flat), (flat,), (flat,), (flat, 5), (5, 4), (4,), scale=scale)
        return {"encoder": {"w": w[0], "b": w[1]}, "prior": w[2], "decoder": {"w": w[3], "v": w[4], "b": w[5]}}

    model = vaejax.Model(
        init=lambda key, batch: params(keys[0], 0.7),
        posterior=lambda p, x: family((x @ p["encoder"]["w"] + p["encoder"]["b"]).reshape(*x.shape[:-1], *event)),
        prior=lambda p: family(p["prior"].reshape(event)),
        likelihood=lambda p, z: Bernoulli(
            jnp.tanh(z.reshape(*z.shape[: -len(event)], flat) @ p["decoder"]["w"]) @ p["decoder"]["v"]
            + p["decoder"]["b"]
        ),
    )
    states = states_of("6 Bernoullis" if kind == "bernoulli" else "2 categories of 4")
    points = {"near": params(keys[0], 0.5), "far": params(keys[1], 0.9)}
    return Enumerable(model, points, sum_over(model, states))


def two_layers(seed=5, sizes=(3, 3), top_down=False):
    """q(z₁|x) q(z₂|z₁), or q(z₂|x) q(z₁|z₂) from the top down; p(z₂) p(z₁|z₂), p(x|z₁): a sigmoid belief network."""
    # The latents are (z₁, z₂) in either case; what is drawn first sees x.
    order = (1, 0) if top_down else (0, 1)
    first, second = (sizes[place] for place in order)

    def params(key, scale):
        shapes = ((4, first), (first,), (first, second), (second,), (sizes[1],), (sizes[1], sizes[0]), (sizes[0],))
        w = weights(key, *shapes, (sizes[0], 4), scale=scale)
        return {
            "encoder": {"w1": w[0], "b1": w[1], "w2": w[2], "b2": w[3]},
            "prior": {"top": w[4], "w": w[5], "b": w[6]},
            "decoder": w[7],
        }

    model = vaejax.Model(
        init=lambda key, batch: params(key, 0.5),
        posterior=lambda p, x: Chain(
            [
                lambda _: Bernoulli(x @ p["encoder"]["w1"] + p["encoder"]["b1"]),
                lambda drawn: Bernoulli((2 * drawn[0] - 1) @ p["encoder"]["w2"] + p["encoder"]["b2"]),
            ],
            order,
        ),
        prior=lambda p: Chain(
            [
                lambda _: Bernoulli(p["prior"]["top"]),
                lambda drawn: Bernoulli((2 * drawn[0] - 1) @ p["prior"]["w"] + p["prior"]["b"]),
            ],
            order=(1, 0),
        ),
        likelihood=lambda p, z: Bernoulli((2 * z[0] - 1) @ p["decoder"]),
    )
    both = binary(sum(sizes))
    states = (both[:, : sizes[0]], both[:, sizes[0] :])
    keys = jax.random.split(jax.random.key(seed))
    points = {"near": params(keys[0], 0.5), "far": params(keys[1], 0.9)}
    return Enumerable(model, points, sum_over(model, states))


def mixed(seed=9):
    """A category of 4, then a Gaussian given it: q(c|x) q(z|c, x), p(c) p(z), p(x|c, z)."""

    def params(key, scale):
        w = weights(key, (4, 4), (4,), (4, 1), (1,), (4,), (4, 4), (1, 4), scale=scale)
        return {
            "encoder": {"w": w[0], "loc": w[2], "log_scale": 0.3 * w[3]},
            "prior": w[4],
            "decoder": {"c": w[5], "z": w[6]},
        }

    def gaussian(p, x, c):
        loc = c @ p["encoder"]["loc"] + 0.3 * x[..., :1]
        return diagonal_normal(loc, log_scale=jnp.broadcast_to(p["encoder"]["log_scale"], loc.shape))

    model = vaejax.Model(
        init=lambda key, batch: params(key, 0.5),
        posterior=lambda p, x: Chain(
            [lambda _: OneHotCategorical(x @ p["encoder"]["w"]), lambda drawn: gaussian(p, x, drawn[0])]
        ),
        prior=lambda p: Chain(
            [lambda _: OneHotCategorical(p["prior"]), lambda _: diagonal_normal(jnp.zeros(1), jnp.ones(1))]
        ),
        likelihood=lambda p, z: Bernoulli(z[0] @ p["decoder"]["c"] + jnp.sin(z[1]) @ p["decoder"]["z"]),
    )
    nodes, mass = np.polynomial.hermite_e.hermegauss(40)

    def value(p):
        q, prior = model.posterior(p, X), model.prior(p)
        # Rows: every category with every node.
        c = over_batch(np.repeat(np.eye(4), len(nodes), axis=0))
        normal = q.conditionals[1]((c,)).distribution
        z = (c, normal.loc + normal.scale * np.tile(nodes, 4)[:, None, None])
        share = np.tile(mass / mass.sum(), 4)[:, None] * jnp.exp(q.conditionals[0](()).log_prob(c))
        return jnp.sum(share * (model.likelihood(p, z).log_prob(X) + prior.log_prob(z) - q.log_prob(z)), 0)

    keys = jax.random.split(jax.random.key(seed))
    points = {"near": params(keys[0], 0.5), "far": params(keys[1], 0.9)}
    return Enumerable(model, points, value)


BUILDERS = {
    "6 Bernoullis": lambda: one_layer("bernoulli", 6, 1),
    "2 categories of 4": lambda: one_layer("categorical", 2, 2),
    "two layers of 3": two_layers,
    "top down, 2 and 3": lambda: two_layers(seed=6, sizes=(3, 2), top_down=True),
    "mixed": mixed,
}


# What each model's latents are: an estimator must serve all of it.
KINDS = {
    "6 Bernoullis": {"bernoulli"},
    "2 categories of 4": {"categorical"},
    "two layers of 3": {"bernoulli", "chain"},
    "top down, 2 and 3": {"bernoulli", "chain"},
    "mixed": {"categorical", "chain", "continuous"},
}


def states_of(name):
    """Every state of a model of one layer."""
    if name == "6 Bernoullis":
        return binary(6)
    return np.eye(4)[list(itertools.product(range(4), repeat=2))]


def exact_gradient(made, where):
    """The gradient of the loss −mean ELBO."""
    return jax.grad(lambda p: -jnp.mean(made.elbo(p)))(made.points[where])


def unscaled(estimator):
    """With the positive factor on what the encoder earns, which NVIL reports, taken out again.

    Exact where all that the encoder earns is scored: beside a continuous layer, only while the factor is 1.
    """

    def estimate(params, state, key, batch, step=0):
        found, after = estimator.estimate(params, state, key, batch, step)
        factor = found.metrics.get("signal_scale", 1.0)
        encoder = jax.tree.map(lambda g: g / factor, found.grads["encoder"])
        return found._replace(grads={**found.grads, "encoder": encoder}), after

    return estimator._replace(estimate=estimate)
