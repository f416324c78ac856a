"""The ELBO's options, each against the formula written out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vaejax.objectives import as_objective, elbo, objective
from vaejax.types import LogTerms


@pytest.fixture
def terms():
    rng = np.random.default_rng(0)
    parts = jnp.asarray(rng.gamma(1.0, 0.5, (4, 6)), jnp.float32)
    arrays = [jnp.asarray(rng.normal(size=(3, 4)), jnp.float32) for _ in range(3)]
    return LogTerms(*arrays, kl=parts.sum(-1), kl_parts=parts)


def test_the_two_forms(terms):
    np.testing.assert_allclose(elbo(terms, kl="monte_carlo"), terms.log_weights.mean(0), rtol=1e-5)
    np.testing.assert_allclose(elbo(terms, kl="closed_form"), terms.log_likelihood.mean(0) - terms.kl, rtol=1e-6)
    np.testing.assert_array_equal(elbo(terms), elbo(terms, kl="closed_form"))
    bare = terms._replace(kl=None, kl_parts=None)
    np.testing.assert_array_equal(elbo(bare), elbo(bare, kl="monte_carlo"))
    per_sample = terms._replace(kl=jnp.stack([terms.kl, terms.kl + 1, terms.kl + 2]))
    np.testing.assert_allclose(elbo(per_sample), elbo(terms) - 1.0, rtol=1e-5)


def test_beta_and_its_annealing(terms):
    np.testing.assert_allclose(elbo(terms, beta=4.0), terms.log_likelihood.mean(0) - 4 * terms.kl, rtol=1e-5)
    schedule = optax.linear_schedule(0.0, 1.0, 10)
    for step, weight in ((0, 0.0), (5, 0.5), (10, 1.0), (99, 1.0)):
        np.testing.assert_allclose(elbo(terms, beta=schedule, step=step), elbo(terms, beta=weight), rtol=1e-5)


def test_penalty_is_subtracted(terms):
    np.testing.assert_allclose(elbo(terms._replace(penalty=jnp.arange(4.0))), elbo(terms) - jnp.arange(4.0), rtol=1e-5)


def test_free_bits_per_dimension(terms):
    reconstruction, parts = np.asarray(terms.log_likelihood.mean(0)), np.asarray(terms.kl_parts)
    cost = np.maximum(parts, 0.4).sum(-1)
    np.testing.assert_allclose(
        elbo(terms, free_bits=0.4, free_bits_average="per_example"), reconstruction - cost, rtol=1e-5
    )
    cost = np.maximum(parts.mean(0), 0.4).sum()
    np.testing.assert_allclose(elbo(terms, free_bits=0.4), reconstruction - cost, rtol=1e-5)


@pytest.mark.parametrize("groups", [2, [0, 0, 0, 1, 1, 1], [5, 5, 5, 9, 9, 9]])
def test_free_bits_per_group(terms, groups):
    grouped = np.asarray(terms.kl_parts).reshape(4, 2, 3).sum(-1)
    value = elbo(terms, free_bits=1.2, free_bits_groups=groups, free_bits_average="per_example")
    np.testing.assert_allclose(
        value, np.asarray(terms.log_likelihood.mean(0)) - np.maximum(grouped, 1.2).sum(-1), rtol=1e-5
    )


def test_free_bits_cost_nothing_below_the_threshold(terms):
    np.testing.assert_allclose(elbo(terms, free_bits=1e-9, free_bits_average="per_example"), elbo(terms), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, "beta must be finite, at least 0, got -1"),
        ({"beta": float("nan")}, "beta must be finite"),
        ({"beta": "much"}, "beta must be a number"),
        ({"free_bits": -0.1}, "free_bits must be"),
        ({"kl": "exact"}, "unknown kl 'exact'"),
        ({"free_bits": 0.1, "kl": "monte_carlo"}, "free bits need"),
        ({"free_bits": 0.1, "free_bits_groups": 4}, "does not divide"),
        ({"free_bits": 0.1, "free_bits_groups": [0, 1]}, "the group of each"),
        ({"free_bits": 0.1, "free_bits_average": "batch"}, "unknown free_bits_average"),
    ],
)
def test_bad_options(terms, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        elbo(terms, **options)


def test_a_missing_closed_form_is_named(terms):
    with pytest.raises(ValueError, match="no closed form is known"):
        elbo(terms._replace(kl=None), kl="closed_form")


def test_metadata_through_partial():
    facts = as_objective(elbo)._asdict()
    del facts["function"]
    assert facts == {"name": "elbo", "maximize": True, "of_log_weights": True, "averages_draws": True}
    assert as_objective(functools.partial(elbo, beta=2.0)).of_log_weights is False
    assert as_objective(functools.partial(elbo, kl="closed_form")).of_log_weights is False
    assert as_objective(functools.partial(functools.partial(elbo, beta=2.0), beta=1.0)).of_log_weights is True

    @objective(maximize=False, of_log_weights=True)
    def upper(terms, *, step=0):
        return terms.log_weights.max(0)

    assert as_objective(functools.partial(upper))[1:] == ("upper", False, True, False)


def test_a_plain_function_is_an_objective(terms):
    adapted = as_objective(lambda t: t.log_weights.mean(0))
    np.testing.assert_array_equal(adapted(terms, step=3), terms.log_weights.mean(0))
    assert as_objective(adapted) is adapted


def test_a_plain_function_that_takes_the_step_gets_it(terms):
    def annealed(terms, *, step=0):
        return terms.log_weights.mean(0) * step

    np.testing.assert_allclose(as_objective(annealed)(terms, step=3), 3 * terms.log_weights.mean(0), rtol=1e-6)


def test_free_bits_average_parts_that_carry_the_sample_axis(terms):
    """LogTerms allows kl ``[K, *batch]``; with K equal to the batch a mix-up would go unnoticed without this."""
    parts = jnp.stack([terms.kl_parts + i for i in range(4)])
    many = LogTerms(*(jnp.ones((4, 4)) for _ in range(3)), kl=parts.sum(-1), kl_parts=parts)
    once = LogTerms(*(jnp.ones((4, 4)) for _ in range(3)), kl=parts.mean(0).sum(-1), kl_parts=parts.mean(0))
    for average in ("minibatch", "per_example"):
        np.testing.assert_allclose(
            elbo(many, free_bits=1.7, free_bits_average=average),
            elbo(once, free_bits=1.7, free_bits_average=average),
            rtol=1e-5,
        )


def test_weights_can_be_traced(terms):
    """A sweep over β or λ in one program."""
    swept = jax.vmap(lambda b: as_objective(functools.partial(elbo, beta=b))(terms))(jnp.array([0.5, 2.0]))
    np.testing.assert_allclose(swept[1], elbo(terms, beta=2.0), rtol=1e-5)
    swept = jax.vmap(lambda b: elbo(terms, free_bits=b))(jnp.array([0.0, 0.4]))
    np.testing.assert_allclose(swept[1], elbo(terms, free_bits=0.4), rtol=1e-5)
    np.testing.assert_allclose(swept[0].mean(), elbo(terms).mean() + terms.kl.mean() - terms.kl.mean(), rtol=1e-4)


@pytest.mark.parametrize("thing", [3.0, None, "elbo", jnp.zeros(3), dict, functools.partial(elbo, 1.0)])
def test_what_is_no_objective(thing):
    with pytest.raises(TypeError, match="objective"):
        as_objective(thing)
