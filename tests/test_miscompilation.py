"""One warning comes from a jaxlib that computes wrong values on CPUs; all others are left alone."""

import os
import subprocess
import sys
import warnings

import jax
import pytest

from vaejax import compilation
from vaejax.compilation import miscompilation

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
# An assignment stands for the installation of another release, which a test cannot do.
PROGRAM = """
import warnings, jax, jaxlib, numpy as np
jaxlib.__version__ = {version!r}
import vaejax
from vaejax import numerics, objectives, types
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for size in (3, 4, 5):
        jax.jit(numerics.log_mean_exp)(np.zeros(size, "f"))
print([(w.category.__name__, w.filename, w.lineno) for w in caught])
"""


def run(program, flags=""):
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, env=environment
    )


def test_the_first_program_of_a_faulty_release_warns_once():
    faulty = run(PROGRAM.format(version="0.10.2"))
    assert faulty.stdout.strip() == "[('CompilerWarning', '<string>', 11)]", faulty.stderr
    sound = run(PROGRAM.format(version="0.10.1"))
    assert sound.stdout.strip() == "[]", sound.stderr


def test_where_warnings_are_errors_the_program_can_go_on():
    program = """
import jax, jaxlib
jaxlib.__version__ = "0.10.2"
from vaejax import numerics
try:
    numerics.log_mean_exp(jax.numpy.zeros(3))
except UserWarning as warning:
    print(type(warning).__name__)
print(float(numerics.log_mean_exp(jax.numpy.zeros(3))))
"""
    result = run(program)
    assert result.stdout.split() == ["CompilerWarning", "0.0"], result.stderr


def caught(monkeypatch, backend, flags):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setenv("XLA_FLAGS", flags)
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        miscompilation._warn("0.10.2")
    return [str(message.message) for message in messages]


def test_the_warning_names_the_report_and_both_remedies(monkeypatch):
    (message,) = caught(monkeypatch, "cpu", "--xla_cpu_prefer_vector_width=256")
    for part in ("jaxlib 0.10.2", "39103", "jaxlib==0.10.1", f"XLA_FLAGS={FLAG}=-reduce"):
        assert part in message


@pytest.mark.parametrize(("backend", "flags"), [("gpu", ""), ("tpu", ""), ("cpu", f"{FLAG}=-reduce")])
def test_it_is_silent_where_the_values_are_right(monkeypatch, backend, flags):
    assert not caught(monkeypatch, backend, flags)


# Each line agrees with what jaxlib 0.10.2 computes under these flags.
@pytest.mark.parametrize(
    ("flags", "faulty"),
    [
        ("", True),
        (f"{FLAG}=-reduce", False),
        (f"{FLAG}=-REDUCE", False),
        (f"{FLAG}='-reduce'", False),
        (f"{FLAG}=-reduce,-dot", False),
        (f"{FLAG}=", False),
        (f"{FLAG}=dot", False),
        (f"--xla_foo=1 {FLAG}=-reduce {FLAG}=-dot", False),
        (f"{FLAG}=-reduce {FLAG}=+dot", False),
        (f"{FLAG}=-reduce {FLAG}=reduce", True),
        (f"{FLAG}=-dot", True),
        (f"{FLAG}=+dot", True),
        (f"{FLAG}=reduce", True),
        (f"{FLAG}=+reduce", True),
    ],
)
def test_flags_are_read_as_the_compiler_reads_them(tmp_path, flags, faulty):
    assert compilation.has_faulty_reductions(flags) == faulty
    path = tmp_path / "flags"
    path.write_text(flags + "\n")
    assert compilation.has_faulty_reductions(str(path)) == faulty
    assert compilation.has_faulty_reductions(str(tmp_path / "absent"))
