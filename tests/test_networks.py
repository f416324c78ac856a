"""Networks: pure, plain, independent of where they come from."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.helpers import tree_allclose
from vaejax import nets


def bundled():
    return {
        "mlp": (nets.mlp((6,), (8, 7), (3, 2)), (6,), (3, 2)),
        "mlp without hidden layers": (nets.mlp((2, 3), (), (4,)), (2, 3), (4,)),
        "mlp with norm and dropout": (nets.mlp((6,), (8,), (3,), layer_norm=True, dropout_rate=0.3), (6,), (3,)),
        "conv encoder": (nets.conv_encoder((9, 7), (4, 5), 6), (9, 7), (6,)),
        "conv encoder, channels": (nets.conv_encoder((8, 8, 3), (4,), 6), (8, 8, 3), (6,)),
        "conv decoder": (nets.conv_decoder(5, (4, 3), (9, 7)), (5,), (9, 7)),
        "conv decoder, outputs": (nets.conv_decoder(5, (4, 3), (9, 7), outputs=2), (5,), (9, 7, 2)),
    }


@pytest.mark.parametrize("name", bundled())
@pytest.mark.parametrize("lead", [(), (4,), (2, 4)])
def test_leading_axes(name, lead, key):
    net, in_shape, out_shape = bundled()[name]
    params = net.init(key)
    x = jax.random.normal(key, (*lead, *in_shape))
    out = net.apply(params, x)
    assert out.shape == (*lead, *out_shape)
    tree_allclose(jax.jit(net.apply)(params, x), out)


@pytest.mark.parametrize("name", bundled())
def test_params_are_plain_float_dicts_and_init_depends_on_the_key_alone(name):
    net, *_ = bundled()[name]
    a, b, c = (net.init(jax.random.key(seed)) for seed in (0, 0, 1))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(a))
    assert type(a) is dict
    tree_allclose(a, b, rtol=0, atol=0)
    assert any(bool((x != y).any()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(c)))


def test_context_is_used(key):
    for net, x in (
        (nets.mlp((6,), (8,), (3,), context_size=2), jnp.ones((4, 6))),
        (nets.conv_encoder((8, 8), (4,), 3, context_size=2), jnp.ones((4, 8, 8))),
    ):
        params = net.init(key)
        assert not np.allclose(net.apply(params, x, jnp.zeros((4, 2))), net.apply(params, x, jnp.ones((4, 2))))


def test_dropout_only_with_a_key(key):
    net = nets.mlp((6,), (64,), (3,), dropout_rate=0.5)
    params, x = net.init(key), jnp.ones((4, 6))
    still = net.apply(params, x)
    tree_allclose(net.apply(params, x), still, rtol=0, atol=0)
    dropped = [net.apply(params, x, key=k) for k in jax.random.split(key, 300)]
    assert not np.allclose(dropped[0], dropped[1])
    assert not np.allclose(dropped[0][0], dropped[0][1])  # rows drop apart
    np.testing.assert_allclose(np.mean(dropped, (0, 1)), still[0], atol=0.1)


def test_bfloat16_computes_narrow_and_stores_wide(key):
    net = nets.mlp((6,), (8,), (3,), dtype=jnp.bfloat16)
    params = net.init(key)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    out = net.apply(params, jnp.ones((4, 6)))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        out.astype(jnp.float32), nets.mlp((6,), (8,), (3,)).apply(params, jnp.ones((4, 6))), atol=0.05
    )


def test_float64(key, x64):
    net = nets.mlp((6,), (8,), (3,))
    params = net.init(key)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float64")}
    assert net.apply(params, jnp.ones((4, 6))).dtype == jnp.float64


def test_any_nnx_module_and_its_random_layers(key):
    net = nets.from_nnx(
        lambda rngs: nnx.Sequential(
            nnx.Linear(3, 4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)
        )
    )
    params, x = net.init(key), jnp.ones((5, 3))
    tree_allclose(net.apply(params, x), net.apply(params, x))
    assert not np.allclose(net.apply(params, x), net.apply(params, x, key=key))
    grads = jax.grad(lambda p: net.apply(p, x, key=key).sum())(params)
    assert jax.tree.structure(grads) == jax.tree.structure(params)


def test_nnx_state_that_is_no_parameter_is_refused():
    with pytest.raises(ValueError, match=r"BatchStat.*layer"):
        nets.from_nnx(lambda rngs: nnx.BatchNorm(3, rngs=rngs))


def test_foreign_params_are_named(key):
    net = nets.mlp((6,), (8,), (3,))
    with pytest.raises(ValueError, match=r"do not belong to MLP.*\['dense_0'\]\['bias'\] is missing"):
        net.apply({"a": jnp.zeros(3)}, jnp.ones((4, 6)))
    with pytest.raises(ValueError, match=r"shape \(6, 9\), wanted \(6, 8\)"):
        net.apply(nets.mlp((6,), (9,), (3,)).init(key), jnp.ones((4, 6)))


def test_linen(key):
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x, deterministic=True):
            return linen.Dense(2)(linen.Dropout(0.5, deterministic=deterministic)(linen.tanh(linen.Dense(8)(x))))

    net = nets.from_linen(Net())
    params, x = net.init(key, jnp.zeros((1, 3))), jnp.ones((2, 5, 3))
    assert net.apply(params, x).shape == (2, 5, 2)
    assert not np.allclose(net.apply(params, x), net.apply(params, x, key=key))

    class WithStatistics(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.BatchNorm(use_running_average=False)(x)

    with pytest.raises(ValueError, match="batch_stats"):
        nets.from_linen(WithStatistics()).init(key, jnp.zeros((1, 3)))


def test_equinox(key):
    import equinox as eqx

    net = nets.from_equinox(lambda k: eqx.nn.MLP(3, 2, 8, 1, key=k))
    params, x = net.init(key), jax.random.normal(key, (2, 5, 3))
    np.testing.assert_allclose(net.apply(params, x)[1, 2], eqx.nn.MLP(3, 2, 8, 1, key=key)(x[1, 2]), rtol=1e-5)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(jax.grad(lambda p: net.apply(p, x).sum())(params)))


def test_equinox_dropout_only_with_a_key(key):
    import equinox as eqx

    net = nets.from_equinox(lambda k: eqx.nn.Sequential([eqx.nn.Linear(3, 8, key=k), eqx.nn.Dropout(0.5)]))
    params, x = net.init(key), jnp.ones((5, 3))
    np.testing.assert_array_equal(net.apply(params, x), net.apply(params, x))
    dropped = net.apply(params, x, key=key)
    assert not np.allclose(dropped, net.apply(params, x))
    assert not np.allclose(dropped[0], dropped[1])


@pytest.mark.parametrize(
    ("widths", "error"), [((8, 0), ValueError), (8, TypeError), ((), TypeError), ((4, 2.5), TypeError)]
)
def test_widths_that_are_none_are_refused(widths, error):
    with pytest.raises(error, match="widths"):
        nets.conv_encoder((28, 28), widths, 4)
    with pytest.raises(error, match="widths"):
        nets.conv_decoder(4, widths, (28, 28))


def test_bad_sizes():
    with pytest.raises(ValueError, match="at least 1"):
        nets.mlp((3,), (0,), (2,))
    with pytest.raises(ValueError, match="dropout_rate"):
        nets.mlp((3,), (4,), (2,), dropout_rate=1.5)
    with pytest.raises(ValueError, match="image shape"):
        nets.conv_encoder((64,), (4,), 2)
