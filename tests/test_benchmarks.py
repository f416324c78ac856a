"""The hand-written programs are the same mathematics as ours, and the programs run."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from benchmarks import __main__ as benchmarks_main
from benchmarks import (
    estimator_cost,
    floor,
    gradient_variance,
    handwritten,
    harness,
    iwae_table,
    many_draws,
    ours,
    sbn_table,
    table,
    workloads,
)
from benchmarks import estimators as estimator_table
from benchmarks.suites import epoch as suites_epoch
from benchmarks.workloads import Workload
from tests.helpers import assert_mean

WORKS = {
    "elbo": Workload("dense", (12,), (8, 5), 3, 6, 2),
    "iwae": Workload("dense", (12,), (8, 5), 3, 6, 2, draws=4),
    "conv": Workload("conv", (9, 9), (3, 4), 2, 6, 2, conv=True),
}


def as_ours(work, by_hand):
    """The hand-written parameters in vaejax's tree."""

    def layers(name, parts, hidden):
        *first, last = [{"kernel": layer["w"], "bias": layer["b"]} for layer in parts]
        return {**{f"{name}_{i}": layer for i, layer in enumerate(first)}, hidden: last}

    encoder, decoder = by_hand["encoder"], by_hand["decoder"]
    if work.conv:
        up = layers("conv", decoder[1:], f"conv_{len(decoder) - 2}")
        down = layers("conv", encoder, "out")
        trees = down, {"dense": {"kernel": decoder[0]["w"], "bias": decoder[0]["b"]}, **up}
        last = trees[1][f"conv_{len(decoder) - 2}"]
        bias = jnp.broadcast_to(last.pop("bias"), work.x_shape)
    else:
        trees = layers("dense", encoder, "out"), layers("dense", decoder, "out")
        bias = trees[1]["out"].pop("bias")
    return {"encoder": trees[0], "decoder": trees[1], "output_bias": bias, "likelihood": {}}


@pytest.mark.parametrize("name", WORKS)
def test_the_hand_written_loss_is_the_objective(key, name):
    """At equal parameters, averaged over noise: same value."""
    work = WORKS[name]
    by_hand = handwritten.init(key, work)
    theirs, estimator = as_ours(work, by_hand), ours.estimator(work)
    x = jnp.asarray(workloads.data(work))[: work.batch]
    keys = jax.random.split(key, 4000)
    left = jax.vmap(lambda k: handwritten.loss(by_hand, k, x, work))(keys)
    right = -jax.vmap(lambda k: estimator.estimate(theirs, (), k, x)[0].objective.mean())(keys)
    assert_mean(left - right, 0.0, cap=0.02)
    assert float(right.std()) > 0


def test_the_hand_written_log_marginal_is_the_evidence(key):
    work = WORKS["iwae"]
    by_hand, x = handwritten.init(key, work), jnp.asarray(workloads.data(work))[: work.batch]
    # A posterior near the prior: its weights have no heavy tail, and their error can be told.
    by_hand["encoder"] = jax.tree.map(lambda leaf: 0.1 * leaf, by_hand["encoder"])
    found = handwritten.make_log_marginal(work, 4000, 100)(by_hand, key, x)
    wanted = vaejax.evaluate.log_marginal(ours.model(work), as_ours(work, by_hand), key, x, num_samples=4000)
    assert np.abs((found - wanted.estimate) / wanted.standard_error).max() < 7  # the error of a difference is √2 of one
    assert wanted.standard_error.max() < 0.02


@pytest.mark.parametrize("name", ["elbo", "conv"])
def test_the_floor_does_every_product_and_stays_finite(name):
    """The compiler has dropped none: the operations that it counts are those of the layers."""
    work = WORKS[name]
    run = floor.products(work)
    for leaf in jax.tree.leaves(run()):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 1e-6
    compiled = floor.step_of(work).lower(floor.layers(work)).compile()
    assert compiled.cost_analysis()["flops"] >= suites_epoch.flops(work)


def test_ratios_are_paired_and_tables_say_what_was_promised():
    row = harness.Row("work", "s", {"vaejax": [1.0, 2.0, 4.0], "other": [2.0, 4.0, 2.0]}, {"other": 0.4})
    assert harness.ratios(row)["other"] == (0.5, 0.5, 1.25)
    assert "wanted ≤ 0.4: MISSED" in "\n".join(harness.lines(row))
    assert harness.as_dict(row)["met"] == {"other": False}
    calls = []
    figures = harness.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "a", "b", "b", "a", "b", "b", "a"]
    assert [len(values) for values in figures.values()] == [2, 2]


@pytest.mark.slow
def test_every_suite_runs(tmp_path, monkeypatch, capsys):
    """Small sizes, and only the peers that any installation has."""
    out = tmp_path / "out.json"
    suites = ["train_step", "epoch", "evaluate", "estimators", "conjugate", "compile", "import", "memory"]
    benchmarks_main.main([*suites, "--quick", "--large", "--repeats", "1", "--peers", "sklearn", "--json", str(out)])
    assert "hand-written" in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert list(content["suites"]) == suites
    assert all(rows for rows in content["suites"].values())
    assert content["versions"]["jax"] == jax.__version__
    assert content["command"].endswith("--quick --large --repeats 1 --peers sklearn")
    assert set(content["suites"]["epoch"][0]["ratios"]) == {"hand-written", "matrix products"}


ROOT = Path(__file__).parent.parent


def test_published_tables_are_those_of_the_result_files():
    """Each line of docs/benchmarks.md, and each that the README takes from it."""
    published = sorted((ROOT / "benchmarks/results").glob("*.json"))
    assert published
    contents = [json.loads(file.read_text()) for file in published]
    lines = [line for content in contents for line in table.rows(content, list(content["suites"]))]
    shown = (ROOT / "docs/benchmarks.md").read_text()
    for content in contents:
        assert table.heading(content) in shown
    of_tables = [
        line for line in shown.splitlines() if (line.startswith("| ") and "µs a step" in line) or " draws, " in line
    ]
    assert of_tables
    measured = (ROOT / "README.md").read_text().split("## Measured")[1].split("## ")[0]
    of_tables += [line for line in measured.splitlines() if "µs a step" in line or "draws, 200 images" in line]
    assert set(of_tables) <= set(lines)


def test_what_is_no_suite_is_refused(capsys):
    with pytest.raises(SystemExit):
        benchmarks_main.main(["epochs"])
    assert "no suite epochs: there are train_step, epoch" in capsys.readouterr().err


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
