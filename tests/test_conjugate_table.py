"""The door of the conjugate models: which columns depend on each other, as far as the floats of the data tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from vaejax.conjugate import bayesian_gmm, factor_analysis, gmm, half_steps, mppca, ppca
from vaejax.conjugate.em import FitResult
from vaejax.conjugate.table import no_dependent_column

X = np.random.default_rng(0).normal(size=(1000, 4))
FAR = X + np.array([0.0, 10.0, 1e3, 1e5])


def door(x, dtype, dimensions=None):
    with jax.enable_x64(dtype == np.float64):
        no_dependent_column(jnp.asarray(x.astype(dtype)), "this model", dimensions)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("x", [X, FAR, 1e-6 * FAR], ids=["near", "far", "small"])
def test_combinations_of_columns_are_refused(x, dtype):
    rounded = x.astype(dtype)
    for other in (x[:, 0], 3.1 * x[:, 0] + 2, x.sum(1), rounded @ np.array([0.3, -2, 1, 0.01], dtype)):
        with pytest.raises(ValueError, match="5 columns span 4 dimensions only as far as") as told:
            door(np.c_[x, other], dtype)
        assert ("float64 tells them apart" in str(told.value)) == (dtype == np.float32)
        door(np.c_[x, other], dtype, dimensions=4)
    door(x, dtype)


def test_rows_too_few_and_columns_that_never_vary_are_refused():
    with pytest.raises(ValueError, match="4 columns span 2 dimensions"):
        door(X[:3], np.float32)
    with pytest.raises(ValueError, match="5 columns span 4 dimensions"):
        door(np.c_[X, np.full(1000, 0.1)], np.float32)


def test_a_column_that_is_coarse_alone_hides_no_other():
    """Far off, its rounding is a hundredth of its spread; that of the two that come near each other is not."""
    x = np.c_[X[:, 0], X[:, 0] + 2e-3 * X[:, 1], X[:, 2] + 1e5]
    door(x, np.float32)
    with pytest.raises(ValueError, match="3 columns span 2 dimensions"):
        door(x + 1e5, np.float32)


def test_groups_far_apart_of_nearly_dependent_columns(key):
    """Float32 bears their own covariances, which are right; that of all rows it does not, and that is what it warns of."""
    x = np.c_[X[:400, 0], X[:400, 0] + 0.01 * X[:400, 1]] + np.repeat([0.0, 100.0], 200)[:, None]
    x = x.astype(np.float32)
    with pytest.warns(UserWarning, match="float32 bears no covariance of all rows.*enable float64"):
        found = gmm.fit_em(key, x, 2, num_starts=1)
    groups = x.astype(np.float64).reshape(2, 200, 2)
    exact = sum(multivariate_normal.logpdf(g, g.mean(0), np.cov(g.T, ddof=0)).sum() + 200 * np.log(0.5) for g in groups)
    np.testing.assert_allclose(found.objective, exact, rtol=1e-4)


def parameters():
    plain = gmm.Gmm(jnp.ones(1), jnp.zeros((1, 4)), jnp.eye(4)[None])
    prior = bayesian_gmm.Prior(jnp.ones(()), jnp.ones(()), jnp.zeros(4), jnp.full((), 5.0), jnp.eye(4))
    bayes = bayesian_gmm.BayesianGmm(
        jnp.ones(1), jnp.ones(1), jnp.zeros((1, 4)), jnp.full(1, 6.0), jnp.eye(4)[None], prior
    )
    return {
        gmm: plain,
        bayesian_gmm: bayes,
        ppca: ppca.Ppca(jnp.zeros(4), jnp.ones((4, 1)), jnp.ones(())),
        factor_analysis: factor_analysis.FactorAnalysis(jnp.zeros(4), jnp.ones((4, 1)), jnp.ones(4)),
        mppca: mppca.Mppca(jnp.ones(1), jnp.zeros((1, 4)), jnp.ones((1, 4, 1)), jnp.ones(1)),
    }


PARAMS = parameters()
FUNCTIONS = {
    "log_prob": lambda m, p, key: m.log_prob(p, X),
    "posterior": lambda m, p, key: m.posterior(p, X),
    "bound": lambda m, p, key: m.bound(p, m.posterior(PARAMS[m], X), X),
    "em_step": lambda m, p, key: m.em_step(p, X),
    "sample": lambda m, p, key: m.sample(p, key, 3),
    "num_parameters": lambda m, p, key: m.num_parameters(p),
    "aic": lambda m, p, key: m.aic(p, X),
    "bic": lambda m, p, key: m.bic(p, X),
    "as_model": lambda m, p, key: m.as_model(p),
    "point": lambda m, p, key: m.point(p),
    "counts": lambda m, p, key: m.counts(p),
    "elbo": lambda m, p, key: m.elbo(p, X),
    "kl_to_prior": lambda m, p, key: m.kl_to_prior(p),
    "to_gmm": lambda m, p, key: m.to_gmm(p),
}


@pytest.mark.parametrize(
    ("module", "name"),
    [(m, name) for m in PARAMS for name in FUNCTIONS if hasattr(m, name)],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_parameters_of_another_kind_are_refused_by_name(module, name, key):
    params, call = PARAMS[module], FUNCTIONS[name]
    call(module, params, key)
    found = FitResult(params, jnp.zeros(2), jnp.ones((), int), jnp.ones((), bool))
    kind = type(params).__name__
    with pytest.raises(TypeError, match=f"params must be {kind}, got FitResult; pass its .params"):
        call(module, found, key)
    other = PARAMS[ppca if module is not ppca else gmm]
    with pytest.raises(TypeError, match=f"got {type(other).__name__}; give a {kind}, or use"):
        call(module, other, key)


@pytest.mark.wants_nan
def test_a_result_prints_in_a_line(key):
    found = gmm.fit_em(key, X, 1, num_starts=2)
    assert repr(found).startswith(
        "FitResult of Gmm(weight 1, mean 1×4, covariance 1×4×4) after 3 steps, converged at -"
    )
    assert repr(found).endswith(" nats, the best of 2 starts")
    assert (
        repr(jax.vmap(lambda _: found)(jnp.arange(3))) == "FitResult of Gmm(weight 3×1, mean 3×1×4, covariance 3×1×4×4)"
    )
    jax.jit(lambda one: repr(one) and one.objective)(found)
    for other in (jax.eval_shape(lambda: found), jax.tree.map(lambda _: True, found), found._replace(trace=None)):
        assert repr(other).startswith("FitResult")


@pytest.mark.parametrize("model", [gmm, ppca, factor_analysis], ids=lambda model: model.__name__)
def test_half_steps_compile_once(model, caplog):
    half_steps(model, PARAMS[model], X, num_steps=2)
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        half_steps(model, PARAMS[model], X, num_steps=2)
    assert not [record for record in caplog.records if "Compiling" in record.getMessage()]


@pytest.mark.parametrize("scale", [1e-21, 1e19])
def test_columns_whose_squares_leave_the_floats_are_refused(scale, key):
    x = X * np.array([1.0, scale, 1.0, 1.0])
    for fit in (lambda: gmm.fit_em(key, x, 2), lambda: factor_analysis.fit_em(key, x, 1), lambda: ppca.fit_ml(x, 1)):
        with pytest.raises(
            ValueError, match=r"column 1 has a range of .*, whose square float32 does not hold; rescale it"
        ):
            fit()
    with jax.enable_x64(True):
        gmm.fit_em(key, x, 2, num_starts=1, covariance="diag")


@pytest.mark.slow
def test_structures_that_the_shape_does_not_tell_are_remarked(x64, key):
    for covariance, said in (
        ("equal_shape", "covariance='equal_shape'"),
        (gmm.low_rank(1), r"covariance=gmm.low_rank\(q\)"),
    ):
        params = gmm.fit_em(key, X, 2, covariance=covariance, num_starts=1, max_steps=20).params
        with pytest.warns(UserWarning, match=f"look like those fitted with {said}, and are counted as free"):
            free = gmm.num_parameters(params)
        assert gmm.num_parameters(params, covariance) < free == 1 + 8 + 20
    plain = gmm.fit_em(key, X, 2, num_starts=1, max_steps=20).params
    assert gmm.num_parameters(plain) == 29
    with pytest.raises(ValueError, match=r"covariance='spherical' does not go with covariances \[2, 4, 4\]"):
        gmm.bic(plain, X, "spherical")


def test_columns_too_far_from_0_for_float32_are_warned_of(key):
    far = X + np.array([0.0, 1e6, 0.0, 0.0])
    for fit in (lambda: ppca.fit_ml(far, 1), lambda: factor_analysis.fit_em(key, far, 1, max_steps=5)):
        with pytest.warns(
            UserWarning, match=r"column 1 lies 1e\+06 from 0, .* is only .* times the spacing of float32; subtract"
        ):
            fit()
    ppca.fit_ml(X + 1e3, 1)
    with jax.enable_x64(True):
        ppca.fit_ml(X + 1e9, 1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (bayesian_gmm, "got vaejax.conjugate.bayesian_gmm, whose log_prob is no ln p"),
        (mppca, r"which has no bound; use half_steps\(gmm, mppca.to_gmm"),
        ("gmm", "got str, which has no posterior"),
    ],
)
def test_half_steps_of_other_models_are_refused(model, message):
    with pytest.raises(TypeError, match=message):
        half_steps(model, PARAMS.get(model), X, num_steps=1)
