"""Strided convolutions as products against XLA's own, with their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaejax.nets import strided

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
XLA = {
    "convolve": lambda x, w: jax.lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=DIMENSIONS),
    "convolve_transposed": lambda x, w: jax.lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=DIMENSIONS),
}


@pytest.mark.parametrize("name", XLA)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (1, 4), (7, 7), (8, 5), (5, 8), (28, 20)])
def test_values_and_gradients_are_xlas(x64, name, size):
    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.normal(size=(3, *size, 2))), jnp.asarray(rng.normal(size=(3, 3, 2, 4)))
    ours, theirs = getattr(strided, name), XLA[name]
    exact = theirs(x, w)
    np.testing.assert_allclose(ours(x, w), exact, atol=1e-12)
    cotangent = jnp.asarray(rng.normal(size=exact.shape))
    for found, wanted in zip(jax.vjp(ours, x, w)[1](cotangent), jax.vjp(theirs, x, w)[1](cotangent)):
        np.testing.assert_allclose(found, wanted, atol=1e-11)


def loss(function):
    """Of a third power, so that second derivatives are those of both arguments."""
    return lambda x, w: jnp.sum(function(x, w) ** 3)


@pytest.mark.parametrize("name", XLA)
def test_second_derivatives_and_many_kernels_are_xlas(x64, name):
    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.normal(size=(4, 3, 5, 6, 2))), jnp.asarray(rng.normal(size=(4, 3, 3, 2, 3)))
    towards = jnp.asarray(rng.normal(size=x[0].shape)), jnp.asarray(rng.normal(size=w[0].shape))
    found, wanted = (
        (jax.jvp(jax.grad(loss(f), (0, 1)), (x[0], w[0]), towards), jax.vmap(jax.grad(loss(f), (0, 1)))(x, w))
        for f in (getattr(strided, name), XLA[name])
    )
    for own, exact in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        np.testing.assert_allclose(own, exact, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("name", XLA)
def test_no_examples_and_no_channels(name):
    ours, theirs = getattr(strided, name), XLA[name]
    for x, w in (((0, 5, 4, 2), (3, 3, 2, 3)), ((2, 5, 4, 0), (3, 3, 0, 3))):
        x, w = jnp.ones(x), jnp.ones(w)
        np.testing.assert_array_equal(ours(x, w), theirs(x, w))
        assert [g.shape for g in jax.grad(loss(ours), (0, 1))(x, w)] == [x.shape, w.shape]


@pytest.mark.parametrize("name", XLA)
@pytest.mark.parametrize("count", [10, 12])
def test_many_examples_go_in_blocks(name, count, monkeypatch):
    rng = np.random.default_rng(0)
    x, w = (
        jnp.asarray(rng.normal(size=(count, 4, 5, 2)), jnp.float32),
        jnp.asarray(rng.normal(size=(3, 3, 2, 3)), jnp.float32),
    )
    monkeypatch.setattr(strided, "_LARGEST", 600 if name == "convolve" else 2200)
    ours = getattr(strided, name)
    assert "while" in jax.jit(ours).lower(x, w).as_text()
    np.testing.assert_allclose(jax.jit(ours)(x, w), XLA[name](x, w), atol=1e-5)
    for own, exact in zip(jax.grad(loss(ours), (0, 1))(x, w), jax.grad(loss(XLA[name]), (0, 1))(x, w)):
        np.testing.assert_allclose(own, exact, rtol=1e-3, atol=1e-3)
    assert ours(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(("name", "shape"), [("convolve", (14, 14, 8)), ("convolve_transposed", (7, 7, 16))])
def test_gradients_hold_the_patches_a_few_times(name, shape):
    """By the compiler's own account: of the transposed one it was fourteen times, most of it zeros."""
    x, w = jnp.ones((64, *shape)), jnp.ones((3, 3, shape[-1], 24 - shape[-1]))
    gradients = jax.grad(lambda x, w: jnp.sum(jnp.sin(getattr(strided, name)(x, w))), (0, 1))
    held = jax.jit(gradients).lower(x, w).compile().memory_analysis().temp_size_in_bytes
    assert held <= 3 * 64 * 7 * 7 * 9 * 8 * 4


@pytest.mark.parametrize("name", XLA)
def test_narrow_types_are_rounded_once(name):
    """Within half a unit in the last place of the exact sum of products, and gradients no further off than XLA's."""
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.normal(size=size), jnp.bfloat16) for size in ((5, 8, 8, 16), (3, 3, 16, 8)))
    ours, theirs = getattr(strided, name), XLA[name]
    exact = np.asarray(theirs(x.astype(jnp.float32), w.astype(jnp.float32)))
    found = np.asarray(ours(x, w).astype(jnp.float32))
    assert np.all(np.abs(found - exact) <= 2.0**-8 * np.abs(exact) + 1e-5)

    def gradients(function, *arguments):
        return jax.grad(lambda x, w: jnp.sum(function(x, w).astype(jnp.float32) ** 2), (0, 1))(*arguments)

    wanted = gradients(theirs, x.astype(jnp.float32), w.astype(jnp.float32))
    errors = [
        [float(jnp.abs(g.astype(jnp.float32) - v).mean()) for g, v in zip(gradients(f, x, w), wanted)]
        for f in (ours, theirs)
    ]
    assert np.all(np.array(errors[0]) < 1.5 * np.array(errors[1]))


@pytest.mark.parametrize("name", XLA)
@pytest.mark.parametrize("shape", [(5, 5, 2, 4), (6, 3, 1, 4), (3, 3, 3, 4), (3, 3, 2)])
def test_kernels_of_another_shape_are_refused(name, shape):
    with pytest.raises(ValueError, match=r"kernel \[3, 3, c, outputs\]"):
        getattr(strided, name)(jnp.zeros((1, 4, 4, 2)), jnp.zeros(shape))


@pytest.mark.parametrize("name", XLA)
def test_accelerators_have_their_own(name, monkeypatch):
    x, w = jnp.ones((2, 5, 4, 1)), jnp.ones((3, 3, 1, 2))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    ours = getattr(strided, name)
    assert "convolution" in jax.jit(ours).lower(x, w).as_text()
    np.testing.assert_allclose(ours(x, w), XLA[name](x, w), atol=1e-6)
