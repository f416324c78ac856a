"""Steps, epochs and fits: compiled once, pure, reproducible, and honest when numbers break."""

import functools
import os
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.helpers import tree_allclose
from vaejax import train
from vaejax.train import batches
from vaejax.train.batches import plan_epoch, take_batch


def parts(optimizer=None, **options):
    model = vaejax.models.vae(x_shape=(6,), latent_size=2, hidden_sizes=(8,), **options)
    return model, vaejax.estimators.pathwise(model, vaejax.objectives.elbo), optimizer or optax.adam(1e-2)


def counted(estimator):
    traces = []

    def estimate(*arguments):
        traces.append(1)
        return estimator.estimate(*arguments)

    return estimator._replace(estimate=estimate), traces


def test_one_trace_over_a_thousand_steps(key, binary_batch):
    """Changing data, a scheduled optimiser, an annealed objective: still one trace."""
    model, estimator, _ = parts()
    beta = optax.linear_schedule(0.0, 1.0, 500)
    annealed = vaejax.estimators.pathwise(model, functools.partial(vaejax.objectives.elbo, beta=beta), num_samples=2)
    estimator, traces = counted(annealed)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 1000))
    state = train.init(key, model, estimator, optimizer, binary_batch)
    step = train.make_train_step(estimator, optimizer)
    rng = np.random.default_rng(0)
    for _ in range(1000):
        state, _ = step(state, rng.integers(0, 2, binary_batch.shape).astype(np.float32))
    assert int(state.step) == 1000
    assert len(traces) == 1


def test_epoch_is_traced_once(key, binary_batch):
    model, estimator, optimizer = parts()
    estimator, traces = counted(estimator)
    state = train.init(key, model, estimator, optimizer, binary_batch)
    epoch = train.make_epoch(estimator, optimizer, batch_size=4)
    for _ in range(5):
        state, _ = epoch(state, binary_batch)
    assert len(traces) == 1


def test_eager_equals_compiled(key, binary_batch):
    model, estimator, optimizer = parts()
    eager = compiled = train.init(key, model, estimator, optimizer, binary_batch)
    step = train.make_train_step(estimator, optimizer)
    compiled = jax.tree.map(jnp.copy, compiled)
    for _ in range(3):
        eager, eager_metrics = train.step(estimator, optimizer, eager, binary_batch)
        compiled, metrics = step(compiled, binary_batch)
    tree_allclose(eager, compiled)
    tree_allclose(eager_metrics, metrics)


def test_an_ensemble_of_seeds_equals_separate_runs(key, binary_batch):
    """vmap over 8 keys, init and epochs, against 8 runs."""
    model, estimator, optimizer = parts()
    keys = jax.random.split(key, 8)

    def run(key):
        state = train.init(key, model, estimator, optimizer, binary_batch)
        return jax.lax.scan(lambda s, _: train.step(estimator, optimizer, s, binary_batch), state, None, length=20)

    together, metrics = jax.jit(jax.vmap(run))(keys)
    for i, k in enumerate(keys):
        alone, alone_metrics = jax.jit(run)(k)
        tree_allclose(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone, rtol=2e-4, atol=2e-5)
        tree_allclose(jax.tree.map(lambda leaf, i=i: leaf[i], metrics), alone_metrics, rtol=2e-4, atol=2e-5)
    assert float(jnp.std(metrics["objective"][:, -1])) > 0


def test_an_ensemble_of_seeds_through_the_compiled_epoch(key, binary_batch):
    model, estimator, optimizer = parts()
    states = jax.vmap(lambda k: train.init(k, model, estimator, optimizer, binary_batch))(jax.random.split(key, 3))
    epoch = train.make_epoch(estimator, optimizer, batch_size=4)
    one = epoch(jax.tree.map(lambda leaf: leaf[1], states), binary_batch)[0]
    states, metrics = jax.vmap(epoch, in_axes=(0, None))(states, binary_batch)
    assert metrics["objective"].shape == (3, 3)
    tree_allclose(jax.tree.map(lambda leaf: leaf[1], states), one, rtol=2e-4, atol=2e-5)


def test_float64(key, x64):
    model, estimator, optimizer = parts()
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (12, 6)), jnp.float64)
    state = train.init(key, model, estimator, optimizer, x)
    state, metrics = train.make_train_step(estimator, optimizer)(state, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float64")}
    assert metrics["objective"].dtype == jnp.float64


def test_donation_never_eats_the_callers_arrays(key, binary_batch):
    """A model whose init hands out arrays that it keeps."""
    kept = {"w": jnp.ones(6)}
    model = vaejax.Model(
        init=lambda key, batch: kept,
        posterior=lambda params, x: vaejax.dists.diagonal_normal(x * params["w"], jnp.ones_like(x)),
        prior=lambda params: vaejax.dists.standard_normal(6),
        likelihood=lambda params, z: vaejax.dists.Bernoulli(z),
    )
    estimator, optimizer = vaejax.estimators.pathwise(model, vaejax.objectives.elbo), optax.adam(1e-2)
    state = train.init(key, model, estimator, optimizer, binary_batch)
    train.make_train_step(estimator, optimizer)(state, binary_batch)
    np.testing.assert_array_equal(kept["w"], 1.0)
    assert bool(jnp.isfinite(binary_batch).all())


def test_frozen_leaves_stay(key, binary_batch):
    model, _, optimizer = parts(optax.adamw(1e-2, weight_decay=0.1))

    def trainable(params):
        return {name: jax.tree.map(lambda _, train=name != "decoder": train, tree) for name, tree in params.items()}

    frozen = model._replace(trainable=trainable)
    estimator = vaejax.estimators.pathwise(frozen, vaejax.objectives.elbo)
    state = train.init(key, frozen, estimator, optimizer, binary_batch)
    after, _ = train.make_train_step(estimator, optimizer)(jax.tree.map(jnp.copy, state), binary_batch)
    tree_allclose(after.params["decoder"], state.params["decoder"], rtol=0, atol=0)
    assert not np.allclose(after.params["encoder"]["out"]["kernel"], state.params["encoder"]["out"]["kernel"])


def test_refresh_runs_after_each_update(key, binary_batch):
    model, _, optimizer = parts()
    model = model._replace(refresh=lambda params, key, batch: {**params, "output_bias": batch.x.mean(0)})
    estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
    state = train.init(key, model, estimator, optimizer, binary_batch)
    state, _ = train.make_train_step(estimator, optimizer)(state, binary_batch)
    np.testing.assert_allclose(state.params["output_bias"], binary_batch.mean(0))


def test_weights_scale_the_loss(key, binary_batch):
    """Σ w_i L_i / Σ w_i: a common factor of all weights changes nothing."""
    model, estimator, _ = parts()
    params = model.init(key, None)
    weight = jnp.arange(12.0)
    weighted, _ = estimator.estimate(params, (), key, vaejax.Batch(binary_batch, weight=weight))
    plain, _ = estimator.estimate(params, (), key, binary_batch)
    # The first example has weight 0: its content is not read.
    np.testing.assert_allclose(weighted.objective[1:], plain.objective[1:], rtol=1e-6)
    np.testing.assert_allclose(weighted.metrics["objective"], np.average(plain.objective, weights=weight), rtol=1e-5)
    assert float(weighted.metrics["weight"]) == 66.0
    doubled, _ = estimator.estimate(params, (), key, vaejax.Batch(binary_batch, weight=jnp.full(12, 2.0)))
    tree_allclose(doubled.grads, plain.grads, rtol=1e-5, atol=1e-6)


def test_an_upper_bound_is_minimised(key, binary_batch):
    model, _, _ = parts()
    params = model.init(key, None)

    @vaejax.objectives.objective(maximize=False)
    def upper(terms, *, step=0):
        return vaejax.objectives.elbo(terms)

    up, down = (
        vaejax.estimators.pathwise(model, f).estimate(params, (), key, binary_batch)[0].grads
        for f in (vaejax.objectives.elbo, upper)
    )
    tree_allclose(up, jax.tree.map(jnp.negative, down), rtol=1e-6)


def test_epoch_visits_every_row_once_and_drops_the_remainder(key):
    plan = plan_epoch(key, 11, 3)
    rows = np.asarray(plan.order).ravel()
    assert plan.order.shape == (3, 3)
    assert len(set(rows)) == 9
    assert set(rows) <= set(range(11))
    assert not np.array_equal(rows, np.asarray(plan_epoch(plan.next_key, 11, 3).order).ravel())


def test_epoch_is_a_scan_of_steps_over_preprocessed_batches(key):
    """uint8 data reach preprocess as uint8; the epoch equals its steps done one by one."""
    data = np.random.default_rng(0).integers(0, 256, (10, 6)).astype(np.uint8)
    seen = []

    def preprocess(key, batch):
        seen.append(batch.x.dtype)
        return vaejax.data.dynamic_binarization(levels=255)(key, batch)

    model, estimator, optimizer = parts()
    state = train.init(key, model, estimator, optimizer, jnp.zeros((1, 6)))
    plan, by_hand = plan_epoch(state.key, 10, 4), state
    for i in range(2):
        batch = preprocess(jax.random.fold_in(plan.preprocess_key, i), vaejax.Batch(jnp.asarray(data)[plan.order[i]]))
        by_hand, _ = train.step(estimator, optimizer, by_hand._replace(key=plan.step_keys[i]), batch)
    by_hand = by_hand._replace(key=plan.next_key)
    scanned, metrics = train.make_epoch(estimator, optimizer, batch_size=4, preprocess=preprocess)(state, data)
    assert metrics["objective"].shape == (2,)
    assert set(seen) == {jnp.dtype("uint8")}
    tree_allclose(scanned, by_hand)


def test_batches_keep_their_companions(key):
    """Context, mask and weight travel with their rows, whatever their shapes and types."""
    rng = np.random.default_rng(0)
    data = vaejax.Batch(
        jnp.asarray(rng.integers(0, 255, (12, 3, 2), dtype=np.uint8)),
        context={
            "id": jnp.arange(12),
            "code": jnp.asarray(rng.normal(size=(12, 4)), jnp.bfloat16),
            "none": jnp.zeros((12, 0)),
        },
        mask=jnp.asarray(rng.random((12, 3, 2)) < 0.5),
        weight=jnp.arange(12.0),
    )
    plan = plan_epoch(key, 12, 4)
    for index, rows in enumerate(np.asarray(plan.order)):
        batch = take_batch(data, plan, index, None)
        for found, leaf in zip(jax.tree.leaves(batch), jax.tree.leaves(data), strict=True):
            assert found.dtype == leaf.dtype
            np.testing.assert_array_equal(found, leaf[rows])


def test_a_step_on_nothing_is_refused(key):
    model, estimator, optimizer = parts()
    state = train.init(key, model, estimator, optimizer, jnp.zeros((1, 6)))
    with pytest.raises(ValueError, match=r"batch is empty: an array of shape \[0, 6\]"):
        train.make_train_step(estimator, optimizer)(state, jnp.zeros((0, 6)))


@pytest.mark.parametrize("companion", ["weight", "context"])
@pytest.mark.parametrize("rows", [3, 9])
def test_companions_of_other_rows_are_refused_by_an_epoch(key, companion, rows):
    model, estimator, optimizer = parts()
    state = train.init(key, model, estimator, optimizer, jnp.zeros((1, 6)))
    data = vaejax.Batch(jnp.zeros((6, 6)), **{companion: jnp.ones(rows)})
    with pytest.raises(ValueError, match=companion):
        train.make_epoch(estimator, optimizer, batch_size=2)(state, data)


@pytest.mark.parametrize(("num_batches", "held"), [(7, 2**20), (8, 2**20), (30, 2**20), (30, 8 * 136), (31, 9 * 136)])
def test_batches_gathered_ahead_are_those_taken_one_by_one(monkeypatch, key, num_batches, held):
    """All at once, in groups that fill and in groups that do not; 136 bytes a batch of 4."""
    monkeypatch.setattr(batches, "_HELD", held)
    n = 4 * num_batches + 3
    data = vaejax.Batch(jnp.arange(6 * n).reshape(n, 2, 3), context=jnp.arange(n), mask=jnp.ones((n, 2, 3), bool))
    plan = plan_epoch(key, n, 4)

    def preprocess(key, batch):
        return batch._replace(x=batch.x + jax.random.uniform(key))

    @jax.jit
    def scanned(data):
        carry, following = batches.in_turn(data, plan, preprocess)
        assert (carry is None) == (num_batches < 8)
        return jax.lax.scan(following, carry, jnp.arange(num_batches))[1]

    for index, batch in enumerate(zip(*jax.tree.leaves(scanned(data)), strict=True)):
        for found, wanted in zip(batch, jax.tree.leaves(take_batch(data, plan, index, preprocess)), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_sharded_epoch_equals_the_unsharded_one():
    """Two CPU devices, in a process of their own: the flag must be set before JAX starts."""
    program = """
        import jax, jax.numpy as jnp, numpy as np, optax, vaejax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        assert len(jax.devices()) == 2
        model = vaejax.models.vae(x_shape=(6,), latent_size=2, hidden_sizes=(8,))
        estimator, optimizer = vaejax.estimators.pathwise(model, vaejax.objectives.elbo), optax.adam(1e-2)
        x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (16, 6)), jnp.float32)
        sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
        params = []
        for layout in (None, sharding):
            state = vaejax.train.init(jax.random.key(0), model, estimator, optimizer, x)
            state, _ = vaejax.train.make_epoch(estimator, optimizer, batch_size=8, sharding=layout)(state, x)
            params.append(state.params)
        for a, b in zip(*map(jax.tree.leaves, params)):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    """
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, env=environment)


def test_fit_learns_and_keeps_a_history(key):
    digits = vaejax.data.load("digits")
    model = vaejax.models.vae(
        x_shape=(8, 8), latent_size=4, hidden_sizes=(64,), likelihood=vaejax.dists.likelihoods.binomial(16)
    )
    estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
    options = {"estimator": estimator, "optimizer": optax.adam(3e-3), "batch_size": 50}
    result = train.fit(key, model, digits.train, num_epochs=8, validation=digits.validation, **options)
    assert set(result.history) == {
        "epoch",
        "objective",
        "log_likelihood",
        "kl",
        "seconds",
        "validation_elbo",
        "validation_standard_error",
    }
    assert all(len(column) == 8 for column in result.history.values())
    gain = result.history["validation_elbo"][-1] - result.history["validation_elbo"][0]
    assert gain > 5 * result.history["validation_standard_error"].max()
    again = train.fit(key, model, digits.train, num_epochs=8, **options)
    tree_allclose(again.state.params, result.state.params, rtol=0, atol=0)


def test_fit_continues_from_a_state_without_consuming_it(key, binary_batch):
    model, estimator, optimizer = parts()
    options = {"estimator": estimator, "optimizer": optimizer, "batch_size": 4}
    half = train.fit(key, model, binary_batch, num_epochs=2, **options)
    whole = train.fit(key, model, binary_batch, num_epochs=4, **options)
    for _ in range(2):
        rest = train.fit(key, model, binary_batch, num_epochs=2, state=half.state, **options)
        tree_allclose(rest.state.params, whole.state.params)


def exploding(model, at):
    """An objective that turns infinite at a step."""

    @vaejax.objectives.objective()
    def objective(terms, *, step=0):
        value = vaejax.objectives.elbo(terms)
        return jnp.where(step == at, jnp.inf, 1.0) * value

    return vaejax.estimators.pathwise(model, objective)


def test_non_finite_values_stop_with_step_term_and_state(key, binary_batch):
    model, _, optimizer = parts()
    with pytest.raises(train.NonFiniteError, match=r"step 7 \(epoch 3\): objective is infinite") as caught:
        train.fit(
            key, model, binary_batch, estimator=exploding(model, 7), optimizer=optimizer, num_epochs=5, batch_size=4
        )
    error = caught.value
    assert error.step == 7
    assert len(error.history["epoch"]) == 2
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(error.state.params))


@pytest.mark.parametrize("dropout_rate", [0.0, 0.5])
@pytest.mark.parametrize("num_samples", [1, 8])
def test_the_term_that_broke_is_named(num_samples, dropout_rate, key, binary_batch):
    """A likelihood that is infinite for rare draws: the replay must look at the very draws of the step."""
    model, _, optimizer = parts(dropout_rate=dropout_rate)

    def likelihood(params, z, context=None, *, key=None):
        inner = model.likelihood(params, z, key=key)
        return vaejax.dists.Bernoulli(jnp.where(z[..., :1] > 2.5, jnp.inf, inner.logits))

    broken = model._replace(likelihood=likelihood)
    estimator = vaejax.estimators.pathwise(broken, vaejax.objectives.elbo, num_samples=num_samples)
    with pytest.raises(train.NonFiniteError, match=r"step \d+ \(epoch \d+\): log_likelihood is"):
        train.fit(key, broken, binary_batch, estimator=estimator, optimizer=optimizer, num_epochs=300, batch_size=4)


@pytest.mark.wants_nan
def test_a_broken_last_update_is_noticed(key, binary_batch):
    """No metric shows it: the parameters are asked."""
    model, estimator, _ = parts()
    broken = optax.GradientTransformation(
        lambda p: (), lambda g, s, p=None: (jax.tree.map(lambda x: x * jnp.nan, g), s)
    )
    with pytest.raises(train.NonFiniteError, match=r"step 0 \(epoch 1\): the update of params\['decoder'\]"):
        train.fit(key, model, binary_batch, estimator=estimator, optimizer=broken, num_epochs=1, batch_size=12)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("batch_size", [4, 12])
def test_non_finite_updates_can_be_skipped_and_counted(batch_size, frozen, key, binary_batch):
    """Also where an epoch is one batch, or part of the model is frozen; and the state is that of the caller's optimiser."""
    model, _, optimizer = parts()
    if frozen:
        model = model._replace(
            trainable=lambda params: {name: jax.tree.map(lambda _: True, tree) for name, tree in params.items()}
        )
    options = {"optimizer": optimizer, "num_epochs": 3, "batch_size": batch_size, "nonfinite": "skip"}
    estimator = exploding(model, 12 // batch_size + 12 // batch_size // 3)
    result = train.fit(key, model, binary_batch, estimator=estimator, **options)
    np.testing.assert_array_equal(result.history["skipped"], [0, 1, 0])
    assert np.isfinite(result.history["objective"][[0, 2]]).all()
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(result.state.params))
    fresh = train.init(key, model, estimator, optimizer, binary_batch)
    assert jax.tree.structure(result.state) == jax.tree.structure(fresh)
    train.fit(key, model, binary_batch, estimator=estimator, state=result.state, **options)


@pytest.mark.wants_nan
def test_skipping_does_not_hide_an_optimiser_that_breaks(key, binary_batch):
    model, estimator, _ = parts()
    broken = optax.GradientTransformation(
        lambda p: (), lambda g, s, p=None: (jax.tree.map(lambda x: x * jnp.nan, g), s)
    )
    options = {"estimator": estimator, "optimizer": broken, "num_epochs": 1, "batch_size": 12, "nonfinite": "skip"}
    with pytest.raises(train.NonFiniteError, match=r"the update of params.*look at the optimiser"):
        train.fit(key, model, binary_batch, **options)


@pytest.mark.parametrize("scalar", [0.5, jnp.asarray(0.5), np.float32(0.5)])
def test_scalar_parameters_are_traced_once(scalar, key, binary_batch):
    """A weakly typed scalar would change type at the first update, and compile again."""
    model = vaejax.Model(
        init=lambda key, batch: {"w": scalar},
        posterior=lambda params, x: vaejax.dists.diagonal_normal(x * params["w"], jnp.ones_like(x)),
        prior=lambda params: vaejax.dists.standard_normal(6),
        likelihood=lambda params, z: vaejax.dists.Bernoulli(z),
    )
    estimator, traces = counted(vaejax.estimators.pathwise(model, vaejax.objectives.elbo))
    optimizer = optax.adam(1e-2)
    state = train.init(key, model, estimator, optimizer, binary_batch)
    step = train.make_train_step(estimator, optimizer)
    for _ in range(4):
        state, _ = step(state, binary_batch)
    assert len(traces) == 1


def test_fit_checks_the_data_when_it_continues(key, binary_batch):
    model, estimator, optimizer = parts()
    options = {"estimator": estimator, "optimizer": optimizer, "num_epochs": 1, "batch_size": 4}
    state = train.fit(key, model, binary_batch, **options).state
    with pytest.raises(ValueError, match="only 0 and 1"):
        train.fit(key, model, binary_batch + 7.5, state=state, **options)


@pytest.mark.parametrize(("signals", "whole"), [(1, 3), (2, 2)])
def test_ctrl_c_ends_after_the_epoch_in_hand_and_twice_at_once(signals, whole, key, binary_batch, monkeypatch):
    """The signals come in the middle of epoch 3, from the loop itself: no clock to be slower than."""
    fit_module = sys.modules["vaejax.train.fit"]
    model, estimator, optimizer = parts()
    make_epoch = fit_module.make_epoch

    def interrupted(*arguments, **options):
        epoch, calls = make_epoch(*arguments, **options), []

        def run(state, data):
            calls.append(1)
            after = epoch(state, data)
            if len(calls) == 3:
                for _ in range(signals):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.1)
            return after

        return run

    monkeypatch.setattr(fit_module, "make_epoch", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.warns(UserWarning, match=f"interrupted; returning the state after epoch {whole} of 100"):
        result = train.fit(
            key, model, binary_batch, estimator=estimator, optimizer=optimizer, num_epochs=100, batch_size=4
        )
    assert result.interrupted
    assert result.stopped == "SIGINT"
    assert len(result.history["epoch"]) == whole
    assert int(result.state.step) == 3 * whole
    assert signal.getsignal(signal.SIGINT) is before
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(result.state.params))


def test_progress_is_silent_in_a_pipe_and_shown_on_request(key, binary_batch, capfd):
    model, estimator, optimizer = parts()
    options = {"estimator": estimator, "optimizer": optimizer, "num_epochs": 2, "batch_size": 4}
    train.fit(key, model, binary_batch, **options)
    assert capfd.readouterr() == ("", "")
    train.fit(key, model, binary_batch, progress=True, **options)
    shown = capfd.readouterr().err
    assert "2/2" in shown
    assert "kl=" in shown


def test_parameters_on_disk(tmp_path, key):
    import equinox as eqx

    model, _, _ = parts(likelihood="normal")
    params = model.init(key, None)
    path = train.save_params(tmp_path / "params", params)
    tree_allclose(train.load_params(path, model.init(jax.random.key(1), None)), params, rtol=0, atol=0)
    others = {"equinox": eqx.nn.MLP(3, 2, 4, 1, key=key), "tuple": vaejax.Batch(jnp.ones(3)), "number": 0.5}
    other = {name: eqx.filter(tree, eqx.is_inexact_array_like) for name, tree in others.items()}
    tree_allclose(
        train.load_params(train.save_params(tmp_path / "other", other), other),
        jax.tree.map(jnp.asarray, other),
        rtol=0,
        atol=0,
    )
    bare = train.load_params(train.save_params(tmp_path / "bare", jnp.ones(3)), jnp.zeros(3))
    np.testing.assert_array_equal(bare, 1.0)
    with pytest.raises(FileExistsError, match="choose another"):
        train.save_params(path, params)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        train.load_params(tmp_path / "nothing", params)
    with pytest.raises(FileNotFoundError, match=r"did you mean .*bare"):
        train.load_params(tmp_path, params)
    (tmp_path / "file").write_text("")
    with pytest.raises((NotADirectoryError, FileExistsError)):
        train.save_params(tmp_path / "file" / "params", params)
    with pytest.raises(ValueError, match="do not belong to the checkpoint"):
        train.load_params(
            path, vaejax.models.vae(x_shape=(7,), latent_size=2, hidden_sizes=(8,), likelihood="normal").init(key, None)
        )
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match="is damaged"):
        train.load_params(path, params)
