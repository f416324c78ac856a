"""Optax transformations with extra arguments, against loops written by hand with Optax alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import vaejax
from vaejax import Batch, Estimate, Estimator, Model, train
from vaejax.train.optimizers import extra_arguments
from vaejax.types import EmptyState

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
START = {"a": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array(0.3)}


def losses(params, x):
    """A smooth loss per example, positive, with a minimum that no plain step reaches at once."""
    return jnp.log(jnp.cosh(x @ params["a"] - 1)) + 0.5 * (params["b"] - x[..., 0]) ** 2


def loss(params):
    return jnp.mean(losses(params, X))


def estimate(params, state, key, batch, step=0):
    x = batch.x if isinstance(batch, Batch) else batch
    value, grads = jax.value_and_grad(lambda p: jnp.mean(losses(p, x)))(params)
    return Estimate(-losses(params, x), grads, {"objective": -value}), state


def freeze_b(params):
    return {"a": True, "b": False}


def parts(trainable=None):
    model = Model(lambda key, batch: START, lambda p, x: None, lambda p: None, lambda p, z: None, trainable=trainable)
    return model, Estimator(lambda params, key, batch: EmptyState(), estimate, trainable)


def raw(optimizer, num_steps, free=lambda p: p, whole=lambda p: p):
    """The loop that Optax documents, on the parameters ``free(START)``."""
    if isinstance(optimizer, optax.MultiSteps):
        init, update = optimizer.init, optimizer.update
    else:
        init, update = optimizer.init, optax.with_extra_args_support(optimizer).update
    of_free = lambda p: loss(whole(p))  # noqa: E731
    params = free(START)
    state = init(params)

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(of_free)(params)
        extra = {"value": value, "grad": grads, "value_fn": of_free}
        updates, state = update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    for _ in range(num_steps):
        params, state = step(params, state)
    return params, state


def stepped(optimizer, num_steps, trainable=None):
    model, estimator = parts(trainable)
    state = train.init(KEY, model, estimator, optimizer, X)
    step = train.make_train_step(estimator, optimizer)
    for _ in range(num_steps):
        state, _ = step(state, X)
    assert step._cache_size() == 1
    return state


def close(a, b, rtol=1e-5):
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=rtol, atol=1e-6), a, b)


WITH_ARGUMENTS = {
    "reduce_on_plateau": lambda: optax.chain(optax.adam(0.3), contrib.reduce_on_plateau(0.5, patience=1, rtol=0.5)),
    "polyak_sgd": optax.polyak_sgd,
    "lbfgs": optax.lbfgs,
    "backtracking": lambda: optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10)),
    "momo": lambda: contrib.momo(0.5),
    "injected": lambda: optax.inject_hyperparams(optax.polyak_sgd)(max_learning_rate=0.1),
    "if_finite": lambda: optax.apply_if_finite(optax.polyak_sgd(), 3),
    "multi_steps": lambda: optax.MultiSteps(optax.polyak_sgd(), 2),
    "adam": lambda: optax.adam(0.1),
}


@pytest.mark.parametrize("name", WITH_ARGUMENTS)
def test_steps_equal_the_loop_of_optax(name):
    optimizer = WITH_ARGUMENTS[name]()
    close(stepped(optimizer, 5).params, raw(optimizer, 5)[0])


@pytest.mark.parametrize("name", ["reduce_on_plateau", "polyak_sgd", "lbfgs", "backtracking", "multi_steps"])
def test_frozen_leaves_take_no_part(name):
    optimizer = WITH_ARGUMENTS[name]()
    expected, _ = raw(optimizer, 5, lambda p: {"a": p["a"]}, lambda p: p | {"b": START["b"]})
    state = stepped(optimizer, 5, freeze_b)
    close(state.params, expected | {"b": START["b"]})


@pytest.mark.parametrize("name", ["lbfgs", "multi_steps"])
def test_an_epoch_and_vmapped_seeds_equal_the_steps(name):
    optimizer = WITH_ARGUMENTS[name]()
    model, estimator = parts()
    expected = raw(optimizer, 2)[0]
    state = train.init(KEY, model, estimator, optimizer, X)
    epoch = train.make_epoch(estimator, optimizer, batch_size=len(X))
    for _ in range(2):
        state, _ = epoch(state, X)
    close(state.params, expected, rtol=1e-4)
    states = jax.vmap(lambda key: train.init(key, model, estimator, optimizer, X))(jax.random.split(KEY, 2))
    step = jax.jit(jax.vmap(lambda state: train.step(estimator, optimizer, state, X)[0]))
    params = step(step(states)).params
    for seed in range(2):
        close(jax.tree.map(lambda leaf, i=seed: leaf[i], params), expected, rtol=1e-4)


@pytest.mark.parametrize("trainable", [None, freeze_b])
def test_lookahead_trains_fast_and_evaluates_slow_parameters(trainable):
    optimizer = optax.lookahead(optax.sgd(0.2), sync_period=3, slow_step_size=0.5)
    pair = optax.LookaheadParams.init_synced(START)
    state = optimizer.init(pair)
    for _ in range(5):
        grads = jax.grad(loss)(pair.fast)
        grads = grads if trainable is None else grads | {"b": jnp.zeros(())}
        updates, state = optimizer.update(grads, state, pair)
        pair = optax.apply_updates(pair, updates)
    reached = stepped(optimizer, 5, trainable)
    close(reached.params, pair.fast)
    close(train.evaluation_params(reached), pair.slow)
    assert not np.allclose(pair.fast["a"], pair.slow["a"])


@pytest.mark.parametrize("trainable", [None, freeze_b])
def test_schedule_free_evaluates_the_averaged_parameters(trainable):
    optimizer = contrib.schedule_free(optax.sgd(0.2), 0.2)
    free = (lambda p: p) if trainable is None else (lambda p: {"a": p["a"]})
    params, state = raw(optimizer, 5, free, lambda p: START | p)
    reached = stepped(optimizer, 5, trainable)
    close(reached.params, START | params)
    close(train.evaluation_params(reached), START | contrib.schedule_free_eval_params(state, params))


def test_sam_evaluates_the_unperturbed_parameters():
    def sam(**options):
        return contrib.sam(optax.sgd(0.2), optax.chain(contrib.normalize(), optax.sgd(0.1)), **options)

    params, trail = START, [START]
    for _ in range(3):
        grads = jax.grad(loss)(params)
        norm = optax.tree.norm(grads)
        perturbed = jax.tree.map(lambda p, g, n=norm: p + 0.1 * g / n, params, grads)
        params = jax.tree.map(lambda p, g: p - 0.2 * g, params, jax.grad(loss)(perturbed))
        trail.append(params)
    chained = optax.chain(optax.clip(10.0), sam())
    for num_steps in (4, 5, 6):
        close(train.evaluation_params(stepped(chained, num_steps)), trail[num_steps // 2])
    close(stepped(sam(opaque_mode=True), 3).params, trail[3])


def test_multi_steps_equal_one_step_on_the_mean_gradient():
    reached = stepped(optax.MultiSteps(optax.sgd(0.1), 4), 8)
    close(reached.params, raw(optax.sgd(0.1), 2)[0])


def test_arguments_are_those_of_the_estimate():
    model = vaejax.models.vae(x_shape=3, latent_size=2, hidden_sizes=(4,), likelihood="normal")
    batch = Batch(X, weight=jnp.arange(8.0))
    for objective, sign in ((vaejax.objectives.elbo, -1), (vaejax.objectives.cubo, 1)):
        estimator = vaejax.estimators.pathwise(model, objective, num_samples=2)
        state = train.init(KEY, model, estimator, optax.sgd(0.1), batch)
        at, _ = estimator.estimate(state.params, state.estimator_state, KEY, batch, 0)
        extra = extra_arguments(estimator, state, KEY, batch, at)
        np.testing.assert_allclose(extra["value"], sign * at.metrics["objective"], rtol=1e-6)
        value, grads = jax.jit(jax.value_and_grad(extra["value_fn"]))(state.params)
        np.testing.assert_allclose(value, extra["value"], rtol=1e-5)
        close(grads, at.grads, rtol=1e-4)
        direction = jax.tree.map(jnp.ones_like, state.params)
        slope = jax.jvp(extra["value_fn"], (state.params,), (direction,))[1]
        np.testing.assert_allclose(slope, sum(jnp.sum(g) for g in jax.tree.leaves(at.grads)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["lookahead", "schedule_free"])
def test_fit_validates_and_resumes_with_the_evaluation_parameters(name, tmp_path):
    optimizer = {
        "lookahead": optax.lookahead(optax.adam(0.03), 5, 0.5),
        "schedule_free": contrib.schedule_free_adamw(0.03),
    }[name]
    model = vaejax.models.vae(x_shape=3, latent_size=1, hidden_sizes=(4,), likelihood="normal")
    estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)

    def fit(**options):
        options = {"num_epochs": 3, "batch_size": 4, "validation": X, "progress": False} | options
        return train.fit(KEY, model, X, estimator=estimator, optimizer=optimizer, **options)

    straight = fit()
    expected = train.evaluation_params(straight.state)
    close(straight.params, expected, rtol=0)
    assert any(not np.allclose(a, b) for a, b in zip(*map(jax.tree.leaves, (straight.params, straight.state.params))))
    _, _, validation_key = jax.random.split(KEY, 3)
    elbo = vaejax.evaluate.elbo(model, expected, jax.random.fold_in(validation_key, 3), X).estimate
    np.testing.assert_allclose(straight.history["validation_elbo"][-1], np.mean(elbo), rtol=1e-5)
    fit(num_epochs=2, run_directory=tmp_path / "run", save_every=0)
    resumed = fit(run_directory=tmp_path / "run", resume=True, save_every=0)
    jax.tree.map(
        np.testing.assert_array_equal, (resumed.params, resumed.best_params), (straight.params, straight.best_params)
    )


def test_what_is_not_an_optimizer_is_refused_with_the_cure():
    from flax import nnx

    model, estimator = parts()
    wrapped = nnx.Optimizer(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), optax.adam(1e-3), wrt=nnx.Param)
    for bad, cure in (
        (optax.adam, r"Call it with its settings, as in adam\(1e-3\)"),
        (optax.cosine_decay_schedule(0.1, 10), r"pass optax\.adam\(schedule\)"),
        (wrapped, r"\.tx"),
        (1e-3, r"Pass optax\.adam\(0\.001\)"),
        ("adam", "Build one with Optax"),
    ):
        with pytest.raises(TypeError, match=rf"optimizer must be an Optax .*{cure}"):
            train.init(KEY, model, estimator, bad, X)
