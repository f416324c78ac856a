"""The table of this folder, in a process with XLA's own settings: those of the suite could hide a faulty kernel."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def errors(*options):
    """The error of each value as a share of its tolerance."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS" and "CACHE" not in name}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    # A faulty jaxlib must fail by its values, not by the warning about it.
    command = [sys.executable, "-W", "ignore::UserWarning", "-m", "tests.exact_numpy", *options]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])["errors"]


def check(shares, count):
    wrong = {name: share for name, share in shares.items() if not share < 1}
    assert not wrong, f"{len(wrong)} of {len(shares)} values are wrong, in tolerances: {wrong}"
    assert len(shares) >= count


def test_compiled_values_equal_numpy():
    check(errors(), 105)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_compiled_values_equal_numpy_at_every_shape():
    check(errors("--all"), 1200)
