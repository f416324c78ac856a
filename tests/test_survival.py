"""Killed, terminated and interrupted processes; damaged checkpoints: nothing is lost, nothing broken is loaded."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaejax import train
from vaejax.train import runs

PROGRAM = """
import functools, sys, jax, numpy as np, optax, vaejax
x = np.random.default_rng(0).integers(0, 17, (400, 16)).astype(np.uint8)
model = vaejax.models.vae(x_shape=16, latent_size=3, hidden_sizes=(32,), dropout_rate=0.1)
result = vaejax.train.fit(
    jax.random.key(0), model, x,
    estimator=vaejax.estimators.pathwise(model, vaejax.objectives.elbo),
    optimizer=optax.adam(optax.cosine_decay_schedule(3e-3, 8000)), num_epochs=200, batch_size=10, validation=x[:50],
    preprocess=vaejax.data.dynamic_binarization(levels=16), run_directory=sys.argv[1], resume=True, save_every=0.1,
    callbacks=[lambda step, state, metrics: print("epoch", metrics["epoch"], flush=True)],
)
print("stopped", result.stopped, flush=True)
"""


def start(directory):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def trees(directory):
    """Every array of the last checkpoint."""
    last = runs.find_checkpoint(directory, "last")
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        return {name: checkpointer.restore(last / name) for name in ("params", "training")}


def assert_same_end(directory, other):
    assert runs.find_checkpoint(directory, "last").name == runs.find_checkpoint(other, "last").name == "epoch-000200"
    assert runs.find_checkpoint(directory, "best").name == runs.find_checkpoint(other, "best").name
    a, b = trees(directory), trees(other)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_array_equal(left, right)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "uninterrupted"
    out, err = start(directory).communicate()
    assert out.endswith("stopped num_epochs\n"), err
    return directory


@pytest.mark.slow
def test_killed_ten_times_and_resumed_the_parameters_are_the_same_bits(tmp_path, uninterrupted):
    moments, killed = random.Random(20261121), []
    directory = tmp_path / "run"
    while len(killed) < 10:
        process = start(directory)
        # From the first epoch of this process on (reading a line waits for it), anywhere in what the whole run takes.
        first = process.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.4))
        process.kill()
        rest, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        killed.append([int(line.split()[1]) for line in (first + rest).splitlines() if line.startswith("epoch")][-1])
        if killed[-1] > 190:
            # Far enough for this run: the next kill begins another one.
            out, err = start(directory).communicate()
            assert out.endswith("stopped num_epochs\n"), err
            assert_same_end(directory, uninterrupted)
            shutil.rmtree(directory)
    print("killed after epochs", killed)
    assert len(set(killed)) > 5
    out, err = start(directory).communicate()
    assert out.endswith("stopped num_epochs\n"), err
    assert_same_end(directory, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_good_checkpoint(tmp_path, which, uninterrupted):
    process = start(tmp_path / "run")
    first = process.stdout.readline()
    process.send_signal(which)
    rest, err = process.communicate()
    out = first + rest
    assert out.endswith(f"stopped {which.name}\n"), err
    assert f"{which.name}: stopping after this epoch" in err
    assert "interrupted; returning the state after epoch" in err
    reached = [line.split()[1] for line in out.splitlines() if line.startswith("epoch")][-1]
    assert runs.find_checkpoint(tmp_path / "run", "last").name == f"epoch-{int(reached):06d}"
    assert start(tmp_path / "run").communicate()[0].endswith("stopped num_epochs\n")
    assert_same_end(tmp_path / "run", uninterrupted)


TREE = {"a": jnp.arange(600.0).reshape(20, 30), "b": {"c": jnp.ones(7), "d": jnp.zeros((), jnp.int32)}}


def damage(rng: np.random.Generator, directory: Path, other: Path) -> str:
    """Does one bad thing to one file of a checkpoint; returns what."""
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    victim = files[rng.integers(len(files))]
    content = bytearray(victim.read_bytes())
    kind = rng.choice(["truncate", "flip", "delete", "append", "zero", "swap", "empty", "insert"])
    if kind == "delete":
        victim.unlink()
        return f"{kind} {victim.name}"
    if kind == "truncate":
        content = content[: rng.integers(max(len(content), 1))]
    elif kind == "flip" and content:
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    elif kind == "zero":
        at = rng.integers(max(len(content), 1))
        content[at : at + 64] = bytes(len(content[at : at + 64]))
    elif kind == "swap":
        same = [p for p in other.rglob(victim.name) if p.is_file()]
        content = bytearray(same[0].read_bytes()) if same else bytearray(b"x")
    elif kind == "empty":
        content = bytearray()
    elif kind == "insert":
        at = rng.integers(len(content) + 1)
        content[at:at] = rng.bytes(5)
    else:
        content += rng.bytes(9)
    if bytes(content) == victim.read_bytes():
        return ""
    victim.write_bytes(content)
    return f"{kind} {victim.name}"


@pytest.mark.slow
def test_two_hundred_damaged_checkpoints_are_all_refused(tmp_path):
    rng = np.random.default_rng(0)
    good = train.save_params(tmp_path / "good", TREE)
    other = train.save_params(tmp_path / "other", jax.tree.map(lambda leaf: leaf + 1, TREE))
    done = 0
    while done < 200:
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(good, tmp_path / "bad")
        what = damage(rng, tmp_path / "bad", other)
        if not what:
            continue
        done += 1
        print(what)
        with pytest.raises(train.CheckpointError, match=r"damaged|cannot be read|no checkpoint"):
            train.load_params(tmp_path / "bad", TREE)
    loaded = train.load_params(good, TREE)
    np.testing.assert_array_equal(loaded["a"], TREE["a"])
