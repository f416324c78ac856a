"""Healthy runs under JAX's debugging modes: no NaN, no infinity, no leaked tracer, no implied rank or dtype promotion."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conformance.modes import ESTIMATES, EVALUATION_ROWS, FITS, OBJECTIVE_ROWS, TRAINING
from vaejax.dists import diagonal_normal
from vaejax.estimators.abstract import without_tracers
from vaejax.numerics import broadcasts, filled

MODES = {
    "nans": lambda: jax.debug_nans(True),
    "leaks": jax.checking_leaks,
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
}
EXHAUSTIVE = (pytest.mark.slow, pytest.mark.exhaustive)
ROWS = ESTIMATES | OBJECTIVE_ROWS | EVALUATION_ROWS | FITS | TRAINING
# The rows that failed before and compile in little time; the others are marked slow.
QUICK = {
    "nans": ["elbo, one draw", "log_marginal, one draw", "latent_usage, one draw", "ppca.fit_em"],
    "leaks": ["pathwise, elbo", "init and one step"],
    "ranks": ["pathwise, iwae", "disarm, elbo", "elbo, one draw", "ppca.fit_em", "ppca.fit_ml"],
}


# Objectives differ in arithmetic alone, and evaluations and fits trace the same functions as training.
ROWS_OF = {"nans": ROWS, "leaks": ESTIMATES | TRAINING, "ranks": ESTIMATES | EVALUATION_ROWS | FITS | TRAINING}


def cases():
    for mode in MODES:
        for name in ROWS_OF[mode]:
            yield pytest.param(mode, name, marks=() if name in QUICK[mode] else EXHAUSTIVE)


@pytest.mark.parametrize(("mode", "name"), list(cases()))
def test_healthy_runs_are_silent(mode, name):
    with contextlib.ExitStack() as stack:
        stack.enter_context(MODES[mode]())
        ROWS[name]()


def test_strict_types_of_a_bayesian_mixture():
    with jax.numpy_dtype_promotion("strict"):
        FITS["bayesian_gmm.fit_cavi"]()


def test_an_undefined_value_is_no_failed_computation():
    with jax.debug_nans(True), jax.debug_infs(True):
        values = filled(jnp.arange(3.0), np.array([False, True, False]), np.nan)
        with pytest.raises(FloatingPointError):
            values + 1
    np.testing.assert_array_equal(values, [0.0, np.nan, 2.0])
    traced = jax.jit(lambda v: filled(v, v > 1.5, -jnp.inf))(jnp.arange(3.0))
    np.testing.assert_array_equal(traced, [0.0, 1.0, -np.inf])


def test_ranks_are_permitted_in_documented_functions_only():
    add = broadcasts(lambda a, b: a + b)
    with jax.numpy_rank_promotion("raise"):
        assert add(jnp.ones((2, 3)), jnp.ones(3)).shape == (2, 3)
        with pytest.raises(ValueError, match="rank_promotion"):
            jnp.ones((2, 3)) + jnp.ones(3)


def test_only_facts_leave_a_trace():
    facts = []

    def build(x):
        q = diagonal_normal(x, jnp.ones_like(x))
        facts.extend(without_tracers([q, lambda: x, lambda: 1]))
        return x

    with jax.checking_leaks():
        jax.eval_shape(build, jnp.zeros((5, 3)))
    assert facts[0].distribution.loc.shape == (5, 3)
    assert facts[0].batch_shape == (5,)
    assert facts[1] is None
    assert facts[2]() == 1
