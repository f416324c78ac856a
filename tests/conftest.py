"""Shared fixtures: a small model, a linear-Gaussian one with everything exact, real data where they are."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax.dists  # noqa: F401  (first: it imports distrax with its one import-time warning silenced)


@pytest.fixture
def key():
    return jax.random.key(20261121)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def data_dir():
    """The folder of real data; tests that need it skip where it is absent."""
    directory = os.environ.get("VAEJAX_DATA")
    if not directory or not Path(directory).is_dir():
        pytest.skip("real data are not on this machine; set VAEJAX_DATA to their folder")
    return Path(directory)


@pytest.fixture
def binary_batch():
    return jnp.asarray(np.random.default_rng(0).integers(0, 2, (12, 6)), jnp.float32)
