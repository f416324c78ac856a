"""Shared fixtures: a small model, a linear-Gaussian one with everything exact, real data where they are."""

import contextlib
import datetime
import os
import shutil
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

# Workers and the programs that tests start compile much the same: they share what they compile, for this session only.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="vaejax-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    os.environ["VAEJAX_TESTS_CACHE_OWNER"] = str(os.getpid())

# Nearly all of the suite's time is compilation: without LLVM's optimisations, and with the older emitters where the compiler still has
# them (an unknown flag ends the process), it takes a third of it, and programs mean the same.
# The last flag keeps 0.10.2, which computes wrong values without it, from failing in tests of other matters.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "")
    + (" --xla_cpu_experimental_ynn_fusion_type=-reduce" if version("jaxlib") == "0.10.2" else ""),
)

# jaxlib 0.10.1 logs an error about processor features whenever it loads a program from that cache.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax.dists  # first: it imports distrax with its one import-time warning silenced

# After this number of seconds the remaining tests are skipped (.ci/run sets it for the slow ones).
SECONDS = float(os.environ["VAEJAX_TEST_SECONDS"]) if "VAEJAX_TEST_SECONDS" in os.environ else None
BEGIN = time.monotonic()


def pytest_configure(config):
    config.addinivalue_line("markers", "wants_nan: computes NaN on purpose, also under JAX_DEBUG_NANS=1")


def pytest_collection_modifyitems(items):
    """Begins at another test every day where there is a time limit, so that each of them is run on some days."""
    if SECONDS is not None and items:
        first = datetime.date.today().toordinal() * 97 % len(items)
        items[:] = items[first:] + items[:first]


def pytest_runtest_setup(item):
    if SECONDS is not None and time.monotonic() - BEGIN > SECONDS:
        pytest.skip(f"the time limit VAEJAX_TEST_SECONDS={SECONDS:g} is reached")


def pytest_unconfigure():
    if os.environ.get("VAEJAX_TESTS_CACHE_OWNER") == str(os.getpid()):
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def forget_compiled():
    """Compiled programs are memory maps, of which a process may have 65,530: thousands of tests would run out of them."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def permit_nan(request):
    """Turns the check for NaN off in tests marked ``wants_nan``, which compute NaN on purpose."""
    with jax.debug_nans(False) if request.node.get_closest_marker("wants_nan") else contextlib.nullcontext():
        yield


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


@pytest.fixture(scope="session")
def small():
    """A nonlinear VAE with its parameters, binary data with something missing, and weights."""
    model = vaejax.models.vae(x_shape=6, latent_size=3, hidden_sizes=(7,))
    rng = np.random.default_rng(1)
    data = jnp.asarray(rng.integers(0, 2, (5, 6)), jnp.float32)
    batch = vaejax.Batch(
        data, mask=jnp.asarray(rng.random((5, 6)) < 0.9), weight=jnp.asarray(rng.random(5), jnp.float32)
    )
    return model, model.init(jax.random.key(3), data), batch
