"""The benchmark's hand-written model is the same mathematics as ours, and the program runs."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from benchmarks import estimator_cost, gradient_variance, handwritten, iwae_table, many_draws, sbn_table, train_step
from benchmarks import estimators as estimator_table
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


def _run(program, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", [program.__name__, *arguments])
    program.main()
    return capsys.readouterr().out


@pytest.mark.slow
def test_the_iwae_table_is_resumed_and_read_again(data_dir, tmp_path, monkeypatch, capsys):
    small = (
        "--examples",
        "100",
        "--epochs",
        "1",
        "--samples",
        "10",
        "--out",
        str(tmp_path),
        "--rows",
        "VAE-1",
        "DReG-2",
    )
    first = _run(iwae_table, monkeypatch, capsys, *small)
    assert "NLL DReG-2 − VAE-1" in first
    files = sorted(tmp_path.rglob("*.npz"))
    assert [f.name for f in files] == ["DReG-2-10samples.npz", "VAE-1-10samples.npz"]
    written = [f.stat().st_mtime_ns for f in files]
    assert _run(iwae_table, monkeypatch, capsys, *small) == first
    assert [f.stat().st_mtime_ns for f in files] == written
    assert iwae_table.schedule(3000)(0) == 1e-3
    # 3 + 1 epochs are over: the second change of the paper's schedule.
    assert float(iwae_table.schedule(3000)(12_000)) == pytest.approx(10 ** (-3 - 2 / 7))


@pytest.mark.slow
def test_the_belief_networks_are_resumed_and_read_again(data_dir, tmp_path, monkeypatch, capsys):
    small = ["--examples", "200", "--test-images", "20", "--samples", "10", "--draws", "10", "--batch-size", "50"]
    small += ["--minutes", "0.001", "--out", str(tmp_path), "--rows", "disarm", "relax", "--data-dir", str(data_dir)]
    first = _run(sbn_table, monkeypatch, capsys, *small)
    assert "nan" not in first
    assert first.split("\n\n")[1].strip() == next(tmp_path.rglob("table.md")).read_text().strip()
    files = sorted(tmp_path.rglob("*.npz"))
    written = [f.stat().st_mtime_ns for f in files]
    assert _run(sbn_table, monkeypatch, capsys, *small) == first
    assert [f.stat().st_mtime_ns for f in files] == written
    assert len(files) == 2


def test_a_budget_counts_what_was_spent_before_and_no_compilation(tmp_path):
    assert sbn_table.spent({1: 9.0, 2: 2.0, 3: 3.0}, 3) == 7.0
    assert sbn_table.spent({1: 9.0, 2: 2.0, 3: 3.0}, 1) == 9.0
    stop = sbn_table.budget(tmp_path, 6.5)
    assert [stop(0, None, {"epoch": e, "seconds": s}) for e, s in ((1, 9.0), (2, 2.0), (3, 3.0))] == [True, False, True]
    (tmp_path / "history.jsonl").write_text('{"epoch": 1, "seconds": 3.0}\n{"epoch": 2, "seconds": 3.0}\n')
    assert sbn_table.budget(tmp_path, 6.5)(0, None, {"epoch": 3, "seconds": 1.0})


@pytest.mark.slow
def test_certificates_are_printed_and_broken_promises_found(tmp_path, monkeypatch, capsys):
    few = [
        "--draws",
        "2000",
        "--models",
        "6 Bernoullis",
        "--rows",
        "disarm",
        "straight_through",
        "--out",
        str(tmp_path),
    ]
    assert "bias where it is declared, and nowhere else" in _run(estimator_table, monkeypatch, capsys, *few)
    found = json.loads((tmp_path / "certificates.json").read_text())
    assert [own["kept"] for own in found] == [True] * 4
    monkeypatch.setattr(estimator_table, "BIASED", {"disarm", "straight_through"})
    with pytest.raises(SystemExit):
        _run(estimator_table, monkeypatch, capsys, *few)
    assert "broken promises: disarm on 6 Bernoullis, near" in capsys.readouterr().out


@pytest.mark.slow
def test_costs_are_relative_to_the_reference(monkeypatch, capsys):
    small = ["--repeats", "2", "--size", "4", "--pixels", "9", "--batch-size", "3"]
    for options, wanted in ((("--layers", "2"), 13), (("--categories", "2", "--rows", "unordered_set", "arsm"), 3)):
        lines = _run(estimator_cost, monkeypatch, capsys, *small, *options).splitlines()[3:]
        assert len(lines) == wanted
        assert "| score_function, leave one out |" in lines[0]
        assert " 1.00 | 0 | ≤ 2 |" in lines[0]


@pytest.mark.slow
def test_the_tables_of_variance_are_printed(monkeypatch, capsys):
    monkeypatch.setattr(gradient_variance, "COUNTS", [1, 4])
    printed = _run(gradient_variance, monkeypatch, capsys, "--draws", "8")
    assert printed.count("exponent ") == 4
    assert "nan" not in printed


@pytest.mark.slow
def test_many_draws_are_measured_case_by_case(monkeypatch, capfd):
    monkeypatch.setattr(
        sys, "argv", ["many_draws", "--samples", "20", "--chunk", "10", "--repeats", "1", "--estimators", "pathwise"]
    )
    many_draws.main()
    assert capfd.readouterr().out.count("s a gradient") == 2
