"""Training with batches divided over eight devices."""

import os
import subprocess
import sys
import textwrap

import pytest


@pytest.fixture(scope="module")
def output():
    """What a process with eight devices prints."""
    code = """
        import jax, jax.numpy as jnp, numpy as np, optax, vaejax
        from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

        explicit = NamedSharding(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,)), P("data"))
        default = NamedSharding(jax.make_mesh((8,), ("data",)), P("data"))
        assert explicit.mesh.axis_types == (AxisType.Explicit,)
        rng = np.random.default_rng(0)
        x, weight = rng.integers(0, 2, (32, 6)).astype(np.float32), rng.uniform(0, 2, 32).astype(np.float32)
        data, on_devices = vaejax.Batch(x, weight=weight), jax.device_put(x, explicit)
        model = vaejax.models.vae(x_shape=6, latent_size=2, hidden_sizes=(8,))
        estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
        optimizer = optax.adam(1e-2)

        def fit(sharding, data=data, **options):
            options = {"num_epochs": 1, "batch_size": 16, "progress": False, "validation": data} | options
            result = vaejax.train.fit(
                jax.random.key(0), model, data, estimator=estimator, optimizer=optimizer, sharding=sharding, **options
            )
            return jax.device_get((result.params, result.history["objective"], result.history["validation_elbo"]))

        alone = fit(None)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), fit(default), alone)
        print("fit agrees")
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), fit(explicit, on_devices), fit(None, x)
        )
        print("data on devices agree")
        states = []
        for layout in (None, explicit):
            state = vaejax.train.init(jax.random.key(0), model, estimator, optimizer, data)
            epoch = vaejax.train.make_epoch(estimator, optimizer, batch_size=16, sharding=layout)
            states.append(jax.device_get(epoch(state, data)[0].params))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), *states)
        print("epoch agrees")
        for bad in (lambda: fit(explicit, batch_size=12), lambda: fit("data")):
            try:
                bad()
            except (TypeError, ValueError) as error:
                print(type(error).__name__, error)
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.slow
def test_meshes_of_any_kind_train_as_one_device_does(output):
    assert output[:3] == ["fit agrees", "data on devices agree", "epoch agrees"]


def test_bad_layouts_are_refused_before_training(output):
    assert output[3].startswith("ValueError batch_size must be a multiple of 8")
    assert output[3].endswith("Pass batch_size=8.")
    assert output[4].startswith("TypeError sharding must be a jax.sharding.Sharding, got str.")
