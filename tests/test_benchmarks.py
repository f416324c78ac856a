"""The benchmark's hand-written model is the same mathematics as ours, and the program runs."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from benchmarks import handwritten, train_step
from tests.helpers import assert_mean

SIZES = handwritten.Sizes(12, 8, 3)


def test_the_hand_written_loss_is_the_negative_elbo(key):
    """At equal parameters, averaged over noise: same value."""
    by_hand = handwritten.init(key, SIZES)
    ours = {
        "encoder": {
            "dense_0": {"kernel": by_hand["w1"], "bias": by_hand["b1"]},
            "out": {"kernel": by_hand["w2"], "bias": by_hand["b2"]},
        },
        "decoder": {"dense_0": {"kernel": by_hand["w3"], "bias": by_hand["b3"]}, "out": {"kernel": by_hand["w4"]}},
        "output_bias": by_hand["b4"],
        "likelihood": {},
    }
    model = vaejax.models.vae(x_shape=12, latent_size=3, hidden_sizes=(8,))
    estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (20, 12)), jnp.float32)
    keys = jax.random.split(key, 4000)
    left = jax.vmap(lambda k: handwritten.loss(by_hand, k, x))(keys)
    right = -jax.vmap(lambda k: estimator.estimate(ours, (), k, x)[0].objective.mean())(keys)
    assert_mean(left - right, 0.0, cap=0.01)
    assert float(right.std()) > 0


def test_the_program_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_step, "WORK", {"small": (SIZES, 16, 3)})
    monkeypatch.setattr(sys, "argv", ["train_step", "--repeats", "2", "--json", str(tmp_path / "out.json")])
    train_step.main()
    assert "ratio epoch" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "out.json").read_text())["small"]["ratios"]) == {
        "epoch",
        "loop",
        "epoch to matrix products",
    }
