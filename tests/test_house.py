"""The house: imports run downward, files and functions stay readable, importing the package stays cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest

PACKAGE = Path(__file__).parents[1] / "vaejax"
FLOORS = [
    {"arrays", "calls", "types", "numerics", "linalg", "random", "checks", "compilation"},
    {"data", "nets"},
    {"dists"},
    {"flows", "smc"},
    {"posteriors"},
    {"priors"},
    {"terms"},
    {"objectives"},
    {"estimators"},
    {"models", "conjugate"},
    {"evaluate"},
    {"train"},
    {"plots"},
    {"report"},
    {"cli"},
]
LEVEL = {name: level for level, floor in enumerate(FLOORS) for name in floor}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            yield path, room, ast.parse(path.read_text())


def imported_rooms(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("vaejax."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            if node.module == "vaejax":
                yield from (a.name for a in node.names)
            elif node.module and node.module.startswith("vaejax."):
                yield node.module.split(".")[1]


def test_imports_run_downward():
    for path, room, tree in modules():
        for other in imported_rooms(tree):
            assert other == room or LEVEL[other] < LEVEL[room] or LEVEL[room] == 0, f"{path} imports {other}"


def test_files_and_functions_are_short():
    for path, _, tree in modules():
        assert path.read_text().count("\n") <= 300, path
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                docstring = len((ast.get_docstring(node, clean=False) or "").splitlines())
                assert node.end_lineno - node.lineno + 1 - docstring <= 50, (path, node.name)


def test_importing_the_package_loads_nothing_heavy():
    heavy = "flax, optax, orbax, sklearn, matplotlib, tqdm, tyro, distrax"
    program = f"import sys, vaejax; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert out.strip() == "[]"


def test_training_loads_nothing_that_evaluation_alone_needs():
    """BlackJAX comes with the first k-hat or chain, which may be asked for within any program."""
    program = """
import sys, vaejax.models, vaejax.objectives, vaejax.estimators, vaejax.train
assert not {"blackjax", "sklearn", "scipy.stats", "matplotlib"} & set(sys.modules)
import jax, jax.numpy as jnp
from vaejax.evaluate.evidence.pareto import pareto_k
tails = -jnp.sort(-jax.random.exponential(jax.random.key(0), (3, 21)))
first = jax.jit(jax.vmap(jax.grad(lambda tail: pareto_k(tail))))(tails)
assert jnp.array_equal(jax.vmap(pareto_k)(tails), jnp.stack([pareto_k(tail) for tail in tails])), "kept a tracer"
assert first.shape == (3, 21) and "blackjax" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_every_namespace_imports_alone_with_warnings_as_errors():
    program = "import importlib, vaejax\nfor n in [*vaejax._NAMESPACES, 'cli']: importlib.import_module('vaejax.' + n)"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
    for first in ("terms", "dists", "estimators"):
        subprocess.run([sys.executable, "-W", "error", "-c", f"import vaejax.{first}"], check=True)


def test_a_time_limit_skips_what_remains_and_begins_elsewhere(monkeypatch):
    items = list("abcdefg")
    conftest.pytest_collection_modifyitems(items)
    conftest.pytest_runtest_setup(None)
    assert items == list("abcdefg")
    monkeypatch.setattr(conftest, "SECONDS", 0.0)
    conftest.pytest_collection_modifyitems(items)
    assert sorted(items) == list("abcdefg")
    with pytest.raises(pytest.skip.Exception, match="time limit"):
        conftest.pytest_runtest_setup(None)
