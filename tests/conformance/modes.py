"""Healthy runs of the public functions, one row each, for the checks under JAX's debugging modes.

Each row is a function without arguments that builds its whole setting, so that the mode covers the construction too.
Shapes are the smallest in which a part does its whole work.
"""

import functools
import warnings

import jax
import numpy as np
import optax

import vaejax
from tests.conformance.tables import ESTIMATORS, MODEL_OF, MODELS, OBJECTIVES, REFUSED
from vaejax import conjugate, evaluate
from vaejax.conjugate import bayesian_gmm, factor_analysis, gmm, mppca, ppca
from vaejax.types import default_float


def binary(rows=6):
    return np.random.default_rng(0).integers(0, 2, (rows, 2, 3)).astype(default_float())


def model_and_params(name="vae"):
    model = MODELS[name]()
    return model, model.init(jax.random.key(0), binary())


def estimate(estimator, objective, *, compiled=True, **options):
    """One estimate of a mask and weights, after the estimator's own checks."""
    name = MODEL_OF[estimator]
    model, params = model_and_params(name)
    x = binary()
    mask = np.ones(x.shape, bool)
    mask[0, 0, 1] = False
    batch = vaejax.Batch(x, mask=mask, weight=np.linspace(0.0, 2.0, 6).astype(x.dtype))
    built = ESTIMATORS[estimator](model, OBJECTIVES[objective], num_samples=4, **options)
    state = built.init(params, jax.random.key(1), batch)
    call = jax.jit(built.estimate) if compiled else built.estimate
    return call(params, state, jax.random.key(2), batch, 3)


def evaluation(function, model="vae", **options):
    built, params = model_and_params(model)
    return function(built, params, jax.random.key(3), binary(), **options)


def fit(**options):
    model = MODELS["vae"]()
    estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
    return vaejax.train.fit(
        jax.random.key(0), model, binary(32), estimator=estimator, optimizer=optax.adam(1e-2),
        num_epochs=2, batch_size=16, **options,
    )  # fmt: skip


def rows(*, missing=False, count=40, size=4):
    rng = np.random.default_rng(1)
    latent = rng.normal(size=(count, 2)) + 3 * rng.integers(0, 2, (count, 1))
    x = latent @ rng.normal(size=(2, size)) + 0.3 * rng.normal(size=(count, size))
    x = x.astype(default_float())
    if not missing:
        return x
    return vaejax.Batch(x, mask=rng.random(x.shape) < 0.9)


def quiet(function, *args, **options):
    """The result without the warnings that so few rows or samples deserve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return function(*args, **options)


KEY = functools.partial(jax.random.key, 5)
CODES = functools.partial(np.random.default_rng(2).normal, size=(60, 3))
FACTORS = functools.partial(np.random.default_rng(2).integers, 0, 2, (60, 2))

ESTIMATES = {
    f"{estimator}, {objective}": functools.partial(estimate, estimator, objective)
    for estimator in ESTIMATORS
    for objective in ("elbo", "iwae")
    if objective not in REFUSED[estimator]
}
OBJECTIVE_ROWS = {
    f"pathwise, {objective}": functools.partial(estimate, "pathwise", objective)
    for objective in OBJECTIVES
    if objective not in ("elbo", "iwae")
}

_SHORT = {"num_temperatures": 2, "num_chains": 2, "num_leapfrog": 2, "progress": False}
_ONE = {**_SHORT, "num_temperatures": 1, "num_chains": 1}
EVALUATION_ROWS = {
    "elbo, one draw": lambda: evaluation(evaluate.elbo),
    "elbo": lambda: evaluation(evaluate.elbo, num_samples=7, chunk_size=3),
    "log_marginal, one draw": lambda: quiet(evaluation, evaluate.log_marginal, num_samples=1),
    "log_marginal": lambda: quiet(evaluation, evaluate.log_marginal, num_samples=70),
    "log_marginal, discrete": lambda: quiet(evaluation, evaluate.log_marginal, "binary", num_samples=7),
    "exact_log_marginal": lambda: evaluate.exact_log_marginal(*model_and_params("binary"), binary()),
    "ais": lambda: evaluation(evaluate.ais, **_SHORT),
    "ais, one chain": lambda: evaluation(evaluate.ais, **_ONE),
    "bdmc": lambda: evaluate.bdmc(*model_and_params(), KEY(), num_examples=3, **_SHORT),
    "bounds": lambda: evaluation(evaluate.bounds, num_samples=6, num_draws=3),
    "bounds, one draw": lambda: evaluation(evaluate.bounds, num_samples=1, num_draws=1),
    "inference_gap": lambda: quiet(
        evaluation, evaluate.inference_gap, num_steps=3, num_draws=2, num_samples=6, progress=False
    ),
    "inference_gap, full": lambda: quiet(
        evaluation,
        evaluate.inference_gap,
        family="full_covariance",
        num_steps=3,
        num_draws=2,
        num_samples=6,
        progress=False,
    ),
    "evidence_report": lambda: quiet(
        evaluation, evaluate.evidence_report, num_samples=6, num_draws=3, num_simulated=3, **_SHORT
    ),
    "evidence_report, discrete": lambda: quiet(
        evaluation, evaluate.evidence_report, "binary", num_samples=6, num_draws=3, progress=False
    ),
    "active_units": lambda: evaluate.active_units(*model_and_params(), binary()),
    "kl_per_dimension": lambda: evaluate.kl_per_dimension(*model_and_params(), binary()),
    "aggregate": lambda: quiet(evaluation, evaluate.aggregate, batch_size=3),
    "aggregate, two draws": lambda: quiet(evaluation, evaluate.aggregate, num_samples=2),
    "aggregate, stratified": lambda: quiet(evaluation, evaluate.aggregate, method="stratified", batch_size=3),
    "calibration": lambda: quiet(evaluate.calibration, *model_and_params(), KEY(), num_simulations=40, num_draws=9),
    "latent_report": lambda: quiet(evaluation, evaluate.latent_report, batch_size=3),
    "latent_usage": lambda: quiet(evaluation, evaluate.latent_usage, num_samples=3),
    "latent_usage, one draw": lambda: quiet(evaluation, evaluate.latent_usage, num_samples=1),
    "frechet_distance": lambda: quiet(evaluate.frechet_distance, rows(), rows()[::-1] + 1),
    "mmd": lambda: quiet(evaluate.mmd, rows(), rows() + 1),
    "mmd, permutations": lambda: quiet(evaluate.mmd, rows(), rows() + 1, key=KEY(), num_permutations=19),
    "classifier_two_sample_test": lambda: quiet(evaluate.classifier_two_sample_test, rows(), rows() + 1, KEY()),
    "simulate": lambda: evaluate.simulate(*model_and_params(), KEY(), 3),
    "mean_estimate": lambda: evaluate.mean_estimate(evaluation(evaluate.elbo)),
    "paired": lambda: evaluate.paired(evaluation(evaluate.elbo), evaluation(evaluate.elbo, num_samples=3)),
    "disentanglement_report": lambda: quiet(
        evaluate.disentanglement_report,
        CODES(),
        FACTORS(),
        KEY(),
        num_votes=20,
        num_pairs=8,
        group_size=8,
        num_trees=2,
    ),
    "variance": lambda: _diagnostic(vaejax.estimators.variance, num_draws=4),
    "certify": lambda: _certify(),
}


def _diagnostic(function, *args, **options):
    model, params = model_and_params("binary")
    estimator = vaejax.estimators.disarm(model, vaejax.objectives.elbo)
    return function(estimator, *args, params, jax.random.key(4), binary(), **options)


def _certify():
    model, params = model_and_params("binary")
    exact = vaejax.estimators.enumerate_latents(model, vaejax.objectives.elbo)
    grads = exact.estimate(params, exact.init(params, KEY(), binary()), KEY(), binary())[0].grads
    return _diagnostic(vaejax.estimators.certify, grads, num_draws=8, block_size=4, repeats=1)


FITS = {
    "ppca.fit_ml": lambda: ppca.fit_ml(rows(), 2),
    "ppca.fit_em": lambda: quiet(ppca.fit_em, KEY(), rows(), 2, max_steps=5),
    "ppca.fit_em, missing": lambda: quiet(ppca.fit_em, KEY(), rows(missing=True), 2, max_steps=5),
    "ppca, the rest": lambda: _linear(ppca, ppca.fit_ml(rows(), 2)),
    "factor_analysis.fit_em": lambda: quiet(factor_analysis.fit_em, KEY(), rows(size=6), 2, max_steps=5),
    "factor_analysis.fit_em, starts": lambda: quiet(
        factor_analysis.fit_em, KEY(), rows(size=6), 2, max_steps=5, num_starts=2
    ),
    "factor_analysis, missing": lambda: quiet(
        factor_analysis.fit_em, KEY(), rows(size=6, missing=True), 2, max_steps=5
    ),
    **{
        f"gmm.fit_em, {getattr(kind, 'name', kind)}": functools.partial(
            lambda kind: quiet(gmm.fit_em, KEY(), rows(), 2, covariance=kind, max_steps=5, num_starts=2), kind
        )
        for kind in ("full", "diag", "spherical", "tied", gmm.low_rank(1))
    },
    "gmm, the rest": lambda: _linear(gmm, quiet(gmm.fit_em, KEY(), rows(), 2, max_steps=3, num_starts=2).params),
    "gmm.fit_em, random starts": lambda: quiet(
        gmm.fit_em, KEY(), rows(), 3, start="random", num_starts=2, prior_count=1.0
    ),
    "gmm.fit_chunked": lambda: quiet(gmm.fit_chunked, KEY(), rows(), 2, chunk_size=15, max_steps=4, num_starts=2),
    "gmm.fit_stepwise": lambda: quiet(gmm.fit_stepwise, KEY(), rows(), 2, batch_size=15, num_starts=2),
    "mppca.fit_em": lambda: quiet(mppca.fit_em, KEY(), rows(), 2, 1, max_steps=5, num_starts=2),
    "bayesian_gmm.fit_cavi": lambda: quiet(bayesian_gmm.fit_cavi, KEY(), rows(), 2, num_starts=2, max_steps=5),
    "bayesian_gmm, the rest": lambda: _bayesian(),
    "linear_vae": lambda: _linear_vae(),
    "varimax": lambda: conjugate.varimax(ppca.fit_ml(rows(), 2).weight),
}


def _linear(module, params):
    x = rows()
    sampled = module.sample(params, KEY(), 3)
    criteria = module.aic(params, x), module.bic(params, x), module.bound(params, module.posterior(params, x), x)
    steps = conjugate.half_steps(module, params, x, num_steps=1)
    model = module.as_model(params) if hasattr(module, "as_model") else None
    terms = None if model is None else vaejax.log_terms(model, params, KEY(), x, num_samples=2)[:3]
    return sampled, criteria, steps, terms, module.log_prob(params, x)


def _bayesian():
    params = quiet(bayesian_gmm.fit_cavi, KEY(), rows(), 2, num_starts=1, max_steps=5).params
    q = bayesian_gmm.posterior(params, rows())
    return bayesian_gmm.elbo(params, rows(), q), bayesian_gmm.log_prob(params, rows()), bayesian_gmm.point(params)


def _linear_vae():
    model = conjugate.linear_vae.as_model(2)
    params = model.init(KEY(), rows())
    estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
    return conjugate.linear_vae.bound(params, rows()), estimator.estimate(params, (), KEY(), rows())


TRAINING = {
    "fit, validation": lambda: fit(validation=binary(8), patience=1),
    "fit": lambda: fit(),
    "init and one step": lambda: _step(),
}


def _step():
    model = MODELS["vae"]()
    estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
    optimizer = optax.adam(1e-2)
    state = vaejax.train.init(jax.random.key(0), model, estimator, optimizer, binary())
    return vaejax.train.make_train_step(estimator, optimizer)(state, binary())
