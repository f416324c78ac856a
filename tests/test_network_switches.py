"""Training switches of networks from Flax Linen, NNX and Equinox, and the order of image axes."""

import warnings

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vaejax import Batch, models, nets

X = jnp.ones((3, 6))


def fraction_of_zeros(net, key):
    params = net.init(jax.random.key(0), X)
    return float((net.apply(params, X) == 0).mean()), float((net.apply(params, X, key=key) == 0).mean())


def linen_with(name, in_training, default):
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x, **options):
            raise NotImplementedError

    def call(self, x, switch):
        return linen.Dropout(0.5, deterministic=switch != in_training)(linen.Dense(64)(x))

    scope = {"call": call}
    source = f"def __call__(self, x, {name}{'' if default is None else f'={default}'}): return call(self, x, {name})"
    exec(source, scope)
    return type(f"Net_{name}", (linen.Module,), {"__call__": linen.compact(scope["__call__"])})()


@pytest.mark.parametrize(
    ("name", "in_training"),
    [
        *((name, True) for name in ("train", "training", "is_training", "is_train", "enable_dropout", "use_dropout")),
        *((name, False) for name in ("deterministic", "inference", "eval_mode", "testing")),
    ],
)
@pytest.mark.parametrize("default", ["evaluation", None])
def test_linen_switches_drop_in_training_only(key, name, in_training, default):
    net = nets.from_linen(linen_with(name, in_training, not in_training if default else None))
    evaluated, trained = fraction_of_zeros(net, key)
    assert evaluated == 0
    assert abs(trained - 0.5) < 5 * 0.5 / np.sqrt(192)


class Inner(linen.Module):
    @linen.compact
    def __call__(self, x, train: bool = False):
        return linen.Dropout(0.5, deterministic=not train)(linen.Dense(64)(x))


class Field(linen.Module):
    training: bool = False

    @linen.compact
    def __call__(self, x):
        return linen.Dropout(0.5, deterministic=not self.training)(linen.Dense(64)(x))


class Undecided(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dropout(0.5)(linen.Dense(64)(x))


class Outer(linen.Module):
    value: bool | None = None

    @linen.compact
    def __call__(self, x):
        return Inner()(x) if self.value is None else Inner()(x, train=self.value)


@pytest.mark.parametrize(
    "module",
    [Inner(), Field(), Field(training=True), Undecided(), Outer(), linen.Sequential([linen.Dense(8), Inner()])],
)
def test_nested_modules_and_fields_follow_the_switch(key, module):
    evaluated, trained = fraction_of_zeros(nets.from_linen(module), key)
    assert evaluated == 0
    assert trained > 0.2


def test_a_nested_call_that_passes_the_switch_keeps_its_value(key):
    assert fraction_of_zeros(nets.from_linen(Outer(value=False)), key) == (0, 0)


def test_training_equals_the_call_of_linen_itself(key):
    net = nets.from_linen(Inner())
    params = net.init(jax.random.key(0), X)
    expected = Inner().apply({"params": params}, X, train=True, rngs={"dropout": key})
    np.testing.assert_array_equal(net.apply(params, X, key=key), expected)
    np.testing.assert_array_equal(net.apply(params, X), Inner().apply({"params": params}, X, train=False))


def test_batch_statistics_and_unknown_switches_are_refused():
    class Normalized(linen.Module):
        @linen.compact
        def __call__(self, x, train: bool = False):
            return linen.BatchNorm(use_running_average=not train)(x)

    class Unknown(linen.Module):
        @linen.compact
        def __call__(self, x, training_phase: bool = False):
            return linen.Dropout(0.5, deterministic=not training_phase)(x)

    with pytest.raises(ValueError, match=r"batch_stats.*layer normalization"):
        nets.from_linen(Normalized()).init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="training_phase"):
        nets.from_linen(Unknown())


class NnxInner(nnx.Module):
    def __init__(self, rngs):
        self.linear, self.drop = nnx.Linear(6, 64, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop(self.linear(x))


class NnxSwitch(NnxInner):
    def __call__(self, x, train: bool = False):
        return self.drop(self.linear(x), deterministic=not train)


class EqxInner(eqx.Module):
    linear: eqx.nn.Linear
    drop: eqx.nn.Dropout

    def __init__(self, key):
        self.linear, self.drop = eqx.nn.Linear(6, 64, key=key), eqx.nn.Dropout(0.5)

    def __call__(self, x, *, key=None):
        return self.drop(self.linear(x), key=key)


class EqxSwitch(EqxInner):
    def __call__(self, x, *, key=None, training: bool = False):
        return self.drop(self.linear(x), key=key, inference=not training)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nets.from_nnx(lambda rngs: NnxInner(rngs)),
        lambda: nets.from_nnx(lambda rngs: NnxSwitch(rngs)),
        lambda: nets.from_nnx(lambda rngs: nnx.Sequential(nnx.Linear(6, 8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs))),
        lambda: nets.from_equinox(EqxInner),
        lambda: nets.from_equinox(EqxSwitch),
        lambda: nets.from_equinox(
            lambda key: eqx.nn.Sequential([eqx.nn.Linear(6, 64, key=key), eqx.nn.Dropout(0.5)]), event_ndims=1
        ),
    ],
)
def test_nnx_and_equinox_drop_in_training_only(key, build):
    evaluated, trained = fraction_of_zeros(build(), key)
    assert evaluated == 0
    assert trained > 0.2


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (4, 84, 84), (3, 64, 48)])
def test_images_with_channels_first_give_a_warning(shape):
    for build in (lambda: nets.conv_encoder(shape, (8,), 4), lambda: nets.conv_decoder(2, (8,), shape)):
        with pytest.warns(UserWarning, match=r"jnp\.moveaxis"):
            build()


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28), (28, 28, 1), (8, 8, 64), (3, 3, 64), (1, 128, 16), (4, 4, 4)])
def test_images_with_channels_last_give_none(shape):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nets.conv_encoder(shape, (8,), 4)
        nets.conv_decoder(2, (8,), shape)


def test_data_with_channels_first_are_not_reshaped_into_images():
    encoder, decoder = nets.conv_encoder((8, 8, 3), (4,), 4), nets.conv_decoder(2, (4,), (8, 8, 3))
    x = jnp.zeros((5, 3, 8, 8))
    with pytest.raises(ValueError, match=r"jnp\.moveaxis\(x, -3, -1\)"):
        encoder.apply(encoder.init(jax.random.key(0)), x)
    model = models.vae(x_shape=(8, 8, 3), latent_size=2, encoder=encoder, decoder=decoder)
    with pytest.raises(ValueError, match=r"jnp\.moveaxis\(x, -3, -1\)"):
        model.init(jax.random.key(0), Batch(x))
    mixed = models.vae(x_shape=(3, 8, 8), latent_size=2, encoder=encoder, decoder=decoder)
    with pytest.raises(ValueError, match=r"jnp\.moveaxis\(x, -3, -1\)"):
        mixed.posterior(mixed.init(jax.random.key(0), Batch(x)), x)
