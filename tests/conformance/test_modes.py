"""Healthy runs under JAX's debugging modes: no NaN, no infinity, no leaked tracer, no implied rank or dtype promotion."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.conformance.modes import ESTIMATES, EVALUATION_ROWS, FITS, OBJECTIVE_ROWS, TRAINING
from vaejax import Batch, evaluate, train
from vaejax.conjugate import ppca
from vaejax.dists import diagonal_normal
from vaejax.estimators.abstract import without_tracers
from vaejax.numerics import broadcasts, filled

KEY = jax.random.key(7)
MODES = {
    "nans": lambda: jax.debug_nans(True),
    "infs": lambda: jax.debug_infs(True),
    "leaks": jax.checking_leaks,
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
}
EXHAUSTIVE = (pytest.mark.slow, pytest.mark.exhaustive)
ROWS = ESTIMATES | OBJECTIVE_ROWS | EVALUATION_ROWS | FITS | TRAINING
# The rows that failed before and compile in little time; the others are marked slow.
QUICK = {
    "infs": ["log_marginal, one draw", "ppca.fit_em"],
    "nans": ["elbo, one draw", "log_marginal, one draw", "latent_usage, one draw", "ppca.fit_em"],
    "leaks": ["pathwise, elbo", "init and one step"],
    "ranks": ["pathwise, iwae", "disarm, elbo", "elbo, one draw", "ppca.fit_em", "ppca.fit_ml"],
}


# Objectives differ in arithmetic alone, and evaluations and fits trace the same functions as training.
ROWS_OF = {
    "nans": ROWS,
    "infs": ROWS,
    "leaks": ESTIMATES | TRAINING,
    "ranks": ESTIMATES | EVALUATION_ROWS | FITS | TRAINING,
}


def cases():
    for mode in MODES:
        for name in ROWS_OF[mode]:
            yield pytest.param(mode, name, marks=() if name in QUICK[mode] else EXHAUSTIVE)


@pytest.mark.parametrize(("mode", "name"), list(cases()))
def test_healthy_runs_are_silent(mode, name):
    with contextlib.ExitStack() as stack:
        stack.enter_context(MODES[mode]())
        ROWS[name]()


MASK = np.random.default_rng(3).random((40, 6)) > 0.2


def with_missing_values(family):
    """Counts with NaN in missing entries, and every fifth example absent; 0 and 1 for a Bernoulli likelihood."""
    x = np.random.default_rng(4).poisson(1.0, (40, 6))
    x = np.minimum(x, 1) if family == "bernoulli" else x
    weight = np.where(np.arange(40) % 5 == 0, 0.0, 1.0).astype(np.float32)
    return Batch(np.where(MASK, x, np.nan).astype(np.float32), mask=MASK, weight=weight)


@pytest.mark.parametrize(
    "family",
    ["normal", pytest.param("bernoulli", marks=pytest.mark.slow), pytest.param("poisson", marks=pytest.mark.slow)],
)
@pytest.mark.filterwarnings("ignore::vaejax.evaluate.UntrustworthyEstimate")
def test_missing_values_and_absent_examples_may_be_nan(family):
    """Such entries are replaced before the first computation."""
    data = with_missing_values(family)
    with jax.debug_nans(True):
        model = vaejax.models.vae(x_shape=6, latent_size=2, hidden_sizes=(4,), likelihood=family)
        estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
        options = {"num_epochs": 1, "batch_size": 10, "validation": data, "progress": False}
        fit = train.fit(KEY, model, data, estimator=estimator, optimizer=optax.adam(1e-3), **options)
        params = fit.state.params
        assert jnp.isfinite(evaluate.log_marginal(model, params, KEY, data, num_samples=30).estimate).all()
        assert jnp.isfinite(evaluate.kl_per_dimension(model, params, data).values).all()
        report = evaluate.evidence_report(model, params, KEY, data, num_samples=20, num_draws=4, progress=False)
        assert all(np.isfinite(line.value.mean) for line in report.lines)


def test_missing_values_of_a_linear_model_may_be_nan():
    x = np.random.default_rng(5).normal(size=(40, 6))
    with jax.debug_nans(True):
        result = ppca.fit_em(KEY, Batch(np.where(MASK, x, np.nan), mask=MASK), 2)
    assert jnp.isfinite(result.objective)


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
