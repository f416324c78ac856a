"""Every estimator × objective × model through the same checks."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.conformance.tables import ESTIMATORS, EVALUATIONS, MODEL_OF, MODELS, OBJECTIVES, PATHS, REFUSED
from tests.helpers import slow_unless, tree_allclose
from vaejax import Batch, train

ALLOWED = [(e, o) for e in ESTIMATORS for o in OBJECTIVES if o not in REFUSED[e]]
# Estimators for discrete latents meet the bulk of the objectives when built only: tests of their own certify them.
SEVERAL = ("elbo", "iwae")
PAIRS = [(e, o) for e, o in ALLOWED if e in PATHS or o in SEVERAL]
# Every check on one objective of each kind; every pair through the one compiled check of them all.
KINDS = ("elbo", "iwae")
TRIPLES = [(e, o, MODEL_OF[e]) for e, o in PAIRS if o in KINDS and (e in PATHS or o == "elbo")]


def setup(estimator, objective, model, dtype=jnp.float32, **options):
    built = MODELS[model]()
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (6, 2, 3)), dtype)
    params = built.init(jax.random.key(0), x)
    made = ESTIMATORS[estimator](built, OBJECTIVES[objective], num_samples=4, **options)
    return made, params, made.init(params, jax.random.key(1), x), x


@pytest.mark.parametrize(("estimator", "objective"), slow_unless(lambda e, o: o in KINDS, PAIRS))
def test_every_allowed_pair(estimator, objective, key, x64):
    """Compiled, mapped over keys, with a mask and weights, the step traced, in float64: what one key gives in any company, and finite.

    One objective of each kind is also compared with an estimate that is not mapped, at the cost of a second compilation.
    """
    made, params, state, x = setup(estimator, objective, MODEL_OF[estimator], jnp.float64)
    mask = jnp.ones(x.shape, bool).at[0, 0, 1].set(False)
    # On the host: under `jax_debug_nans` the array itself would be an error.
    batch = Batch(jax.device_put(np.where(mask, x, np.nan)), mask=mask, weight=jnp.linspace(0.0, 2.0, 6))

    def estimate(key, step):
        return made.estimate(params, state, key, batch, step)[0]

    mapped = jax.jit(jax.vmap(estimate, in_axes=(0, None)))
    keys = jax.random.split(key)
    single = jax.tree.map(lambda leaf: leaf[1], mapped(keys, 3))
    alone = jax.tree.map(lambda leaf: leaf[0], mapped(keys[::-1], 3))
    if (estimator, objective, MODEL_OF[estimator]) in TRIPLES:
        alone = jax.jit(estimate)(keys[1], 3)
    tree_allclose(single, alone, rtol=1e-9, atol=1e-10)
    assert single.objective.shape == (6,)
    assert {leaf.dtype for leaf in jax.tree.leaves(single)} == {jnp.dtype("float64")}
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(single))


@pytest.mark.parametrize(("estimator", "objective"), [(e, o) for e in ESTIMATORS for o in sorted(REFUSED[e])])
def test_every_other_pair_is_refused_when_built(estimator, objective):
    with pytest.raises(ValueError, match=rf"{estimator} cannot serve the objective .*; (this .*)?use [a-z]"):
        ESTIMATORS[estimator](MODELS[MODEL_OF[estimator]](), OBJECTIVES[objective], num_samples=4)


@pytest.mark.parametrize(("estimator", "objective", "model"), TRIPLES)
def test_compiled_equals_eager_and_is_traced_once(estimator, objective, model, key):
    made, params, state, x = setup(estimator, objective, model)
    eager, _ = made.estimate(params, state, key, x, 3)
    traces = []

    @jax.jit
    def f(*arguments):
        traces.append(1)
        return made.estimate(*arguments)

    compiled, _ = f(params, state, key, x, 3)
    tree_allclose(compiled, eager, rtol=1e-4, atol=1e-5)
    for step, k in enumerate(jax.random.split(key, 3)):
        f(params, state, k, 1 - x, step)
    assert len(traces) == 1


@pytest.mark.parametrize(("estimator", "objective", "model"), TRIPLES)
def test_shapes_and_finite_gradients(estimator, objective, model, key):
    made, params, state, x = setup(estimator, objective, model)
    estimate, after = made.estimate(params, state, key, x)
    assert estimate.objective.shape == (6,)
    assert jax.tree.structure(estimate.grads) == jax.tree.structure(params)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(estimate.grads))
    assert all(value.shape == () and bool(jnp.isfinite(value)) for value in estimate.metrics.values())
    np.testing.assert_allclose(estimate.metrics["objective"], estimate.objective.mean(), rtol=1e-5)


@pytest.mark.parametrize(("estimator", "objective", "model"), [triple for triple in TRIPLES if triple[0] in PATHS])
@pytest.mark.parametrize("examples", [1, 5])
def test_masks_and_weights(estimator, objective, model, examples, key):
    """NaN under the mask changes nothing; a weight of zero removes an example's gradient."""
    made, params, state, x = setup(estimator, objective, model)
    x = x[:examples]
    mask = jnp.ones(x.shape, bool).at[0, 0, 1].set(False)
    clean, _ = made.estimate(params, state, key, Batch(jnp.where(mask, x, 0.0), mask=mask))
    dirty, _ = made.estimate(params, state, key, Batch(jnp.where(mask, x, jnp.nan), mask=mask))
    tree_allclose(clean, dirty, rtol=0, atol=0)
    none, _ = made.estimate(params, state, key, Batch(x, weight=jnp.zeros(examples)))
    assert all(bool((g == 0).all()) for g in jax.tree.leaves(none.grads))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimators_train_in_a_scan(estimator, key):
    made, _, _, x = setup(estimator, "elbo", MODEL_OF[estimator])
    optimizer = optax.adam(1e-2)
    state = train.init(key, MODELS[MODEL_OF[estimator]](), made, optimizer, x)
    before = [leaf.dtype for leaf in jax.tree.leaves(state)]
    state, metrics = train.make_epoch(made, optimizer, batch_size=2)(state, x)
    assert [leaf.dtype for leaf in jax.tree.leaves(state)] == before
    assert metrics["objective"].shape == (3,)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_argument_names(estimator):
    constructor = inspect.signature(ESTIMATORS[estimator]).parameters
    assert list(constructor)[:2] == ["model", "objective"]
    assert all(p.kind is p.KEYWORD_ONLY for p in list(constructor.values())[2:])
    assert {"num_samples", "terms"} <= set(constructor)
    made, *_ = setup(estimator, "elbo", MODEL_OF[estimator])
    assert list(inspect.signature(made.init).parameters) == ["params", "key", "batch"]
    assert list(inspect.signature(made.estimate).parameters) == ["params", "state", "key", "batch", "step"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_bad_arguments(estimator, key):
    model = MODELS[MODEL_OF[estimator]]()
    for bad, kind in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(kind, match="num_samples"):
            ESTIMATORS[estimator](model, OBJECTIVES["elbo"], num_samples=bad)
    with pytest.raises(TypeError, match="objective"):
        ESTIMATORS[estimator](model, None)
    with pytest.raises(TypeError, match=r"vaejax\.Model"):
        ESTIMATORS[estimator](None, OBJECTIVES["elbo"])
    made, params, state, x = setup(estimator, "elbo", MODEL_OF[estimator])
    with pytest.raises(TypeError, match="typed key"):
        made.init(params, jax.random.PRNGKey(0), x)
    with pytest.raises(TypeError, match="typed key"):
        made.estimate(params, state, jax.random.PRNGKey(0), x)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_name_their_arguments(objective):
    adapted = vaejax.objectives.as_objective(OBJECTIVES[objective])
    function = OBJECTIVES[objective]
    parameters = inspect.signature(function).parameters
    assert next(iter(parameters)) == "terms"
    assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[1:])
    assert adapted.name


@pytest.mark.parametrize(("estimator", "objective"), [pair for pair in ALLOWED if pair not in PAIRS])
def test_other_allowed_pairs_are_built(estimator, objective):
    assert ESTIMATORS[estimator](MODELS[MODEL_OF[estimator]](), OBJECTIVES[objective], num_samples=4).estimate


@pytest.mark.parametrize("evaluation", EVALUATIONS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.wants_nan
def test_evaluations(evaluation, model, key):
    built = MODELS[model]()
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (5, 2, 3)), jnp.uint8)
    params = built.init(key, x)
    evaluate = EVALUATIONS[evaluation]
    result = evaluate(built, params, key, x)
    assert result.weight is None  # those of the batch, which has none
    fields = {name: field for name, field in result._asdict().items() if name != "weight"}
    assert all(field.shape == (5,) for field in fields.values())
    # Pareto k̂ is not defined for discrete latents, nor for so few samples.
    assert all(bool(jnp.isfinite(field).all()) for name, field in fields.items() if name != "pareto_k")
    compiled = jax.jit(lambda p, k: evaluate(built, p, k, x))(params, key)
    tree_allclose(compiled, result, rtol=1e-4, atol=1e-5)
    assert list(inspect.signature(evaluate).parameters)[:4] == ["model", "params", "key", "batch"]
