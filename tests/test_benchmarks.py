"""The hand-written programs are the same mathematics as ours, and the programs run."""

import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import vaejax
from benchmarks import __main__ as benchmarks_main
from benchmarks import floor, handwritten, harness, ours, peak, table, workloads
from benchmarks.studies import certificates, estimator_cost, gradient_variance, iwae_table, many_draws, sbn_table
from benchmarks.suites import epoch as suites_epoch
from benchmarks.workloads import Workload
from tests.helpers import assert_mean
from vaejax import estimators

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


@pytest.mark.parametrize("name", WORKS)
def test_the_floor_does_every_product_and_stays_finite(name):
    """The operations that the compiler counts are those of the layers: it has dropped none, and the hand-written step has hardly more."""
    work = WORKS[name]
    run = floor.products(work)
    for leaf in jax.tree.leaves(run()):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 1e-6
    compiled = floor.step_of(work).lower(floor.layers(work)).compile()
    counted = compiled.cost_analysis()["flops"]
    assert counted >= suites_epoch.flops(work)
    if not work.conv:
        # By the definition: kernels of the hand-written parameters, and rows of what goes into them.
        params = handwritten.init(jax.random.key(0), work)
        sizes = {part: [layer["w"].size for layer in params[part]] for part in ("encoder", "decoder")}
        first = params["encoder"][0]["w"].size
        wanted = 6 * work.batch * (sum(sizes["encoder"]) + work.draws * sum(sizes["decoder"])) - 2 * work.batch * first
        assert suites_epoch.flops(work) == wanted


@pytest.mark.parametrize("draws", [10, 20])
def test_the_floor_of_the_log_marginal_is_every_layer_for_every_draw(draws):
    work = WORKS["elbo"]
    run = floor.log_marginal_products(work, draws, 10)
    (program,) = [cell.cell_contents for cell in run.__closure__ if hasattr(cell.cell_contents, "lower")]
    x, z = jnp.ones((work.batch, work.x_size)), jnp.ones((work.batch * 10, work.latent))
    params = handwritten.init(jax.random.key(0), work)
    encoder, decoder = (sum(2 * layer["w"].size for layer in params[part]) for part in ("encoder", "decoder"))
    # The compiler counts a loop's body once.
    counted = program.lower(x, z).compile().cost_analysis()["flops"]
    assert work.batch * (encoder + 10 * decoder) <= counted < 1.3 * work.batch * (encoder + 10 * decoder)
    hidden, kept = run()
    assert hidden.shape == (work.batch, 2 * work.latent)
    assert np.isfinite(kept).all()


@pytest.mark.parametrize("name", ["elbo", "iwae"])
@pytest.mark.parametrize("peer", ["numpyro", "torch"])
def test_peers_have_the_same_loss(key, name, peer):
    """At the hand-written parameters, averaged over noise."""
    pytest.importorskip(peer, reason=f"{peer} is of the extra 'peers'")
    work, count = WORKS[name], 2000
    by_hand, x = handwritten.init(key, work), workloads.data(WORKS[name])[: WORKS[name].batch]
    wanted = jax.vmap(lambda k: handwritten.loss(by_hand, k, jnp.asarray(x), work))(jax.random.split(key, count))
    found = {"numpyro": _numpyro_losses, "torch": _torch_losses}[peer](work, by_hand, x, count)
    assert_mean(jnp.asarray(found) - wanted, 0.0, cap=0.05)


def _numpyro_losses(work, by_hand, x, count):
    from benchmarks.peers import numpyro_svi

    svi = numpyro_svi.svi(work)
    state = svi.init(jax.random.key(1), jnp.asarray(x))
    params = svi.get_params(state)
    *hidden, out = by_hand["encoder"]
    heads = [part for side in (0, 1) for part in (jnp.split(out["w"], 2, -1)[side], jnp.split(out["b"], 2)[side])]
    layers = {
        "encoder$params": [*(layer[n] for layer in hidden for n in "wb"), *heads],
        "decoder$params": [layer[n] for layer in by_hand["decoder"] for n in "wb"],
    }
    assert set(params) == set(layers)
    params = {n: jax.tree.unflatten(jax.tree.structure(params[n]), leaves) for n, leaves in layers.items()}
    loss = jax.jit(lambda k: svi.loss.loss(k, params, svi.model, svi.guide, jnp.asarray(x)) / work.batch)
    return [float(loss(k)) for k in jax.random.split(jax.random.key(2), count)]


def _torch_losses(work, by_hand, x, count):
    import torch

    from benchmarks.peers import torch_eager

    torch.manual_seed(0)
    module = torch_eager.Autoencoder(work)
    linear = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    layers = [*by_hand["encoder"], *by_hand["decoder"]]
    with torch.no_grad():
        for part, layer in zip(linear, layers, strict=True):
            part.weight.copy_(torch.tensor(np.asarray(layer["w"]).T))
            part.bias.copy_(torch.tensor(np.asarray(layer["b"])))
        return [float(module(torch.tensor(x))) for _ in range(count)]


def test_ratios_are_paired_and_tables_say_what_was_promised():
    row = harness.Row("work", "s", {"vaejax": [1.0, 2.0, 4.0], "other": [2.0, 4.0, 2.0]}, {"other": 0.4})
    assert harness.ratios(row)["other"] == pytest.approx((0.5, 0.5, 1.0))
    assert "wanted ≤ 0.4: met in 0 of 3" in "\n".join(harness.lines(row))
    assert harness.as_dict(row)["all"] == row.figures
    assert harness.verdicts(row._replace(targets={"other": 0.6, "absent": 1.0})) == {"other": "met in 2 of 3"}
    often = {who: 3 * values for who, values in row.figures.items()}
    for target, verdict in ((0.4, "missed"), (0.6, "within noise"), (1.9, "within noise"), (2.0, "met")):
        assert harness.verdicts(row._replace(figures=often, targets={"other": target})) == {"other": verdict}
    two = harness.Row("work", "s", {"vaejax": [1.0, 8.0], "other": [2.0, 1.0]})
    turned = harness.Row("work", "s", {"vaejax": [2.0, 1.0], "other": [1.0, 8.0]})
    assert harness.ratios(two)["other"].median == pytest.approx(2.0)
    assert harness.ratios(turned)["other"].median == pytest.approx(0.5)
    certified = harness.Row("work", "s", {"vaejax": [1.0]}, facts={"bias": 0.01234, "z": math.nan})
    assert "bias 0.0123, z nan" in "\n".join(harness.lines(certified))
    content = {"suites": {"memory": [harness.as_dict(certified), harness.as_dict(row)]}}
    assert table.tables(content, ["memory"])[0] == [
        "| work | vaejax | bias | z |",
        "|---|---|---|---|",
        "| work | 1.000 s | 0.0123 | – |",
    ]
    calls = []
    figures = harness.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "a", "b", "b", "a", "b", "b", "a"]
    assert [len(values) for values in figures.values()] == [2, 2]


def test_a_command_is_told_without_its_file():
    for given in (["--json", "x y", "epoch", "--quick"], ["epoch", "--json=x", "--quick"], ["epoch", "--quick"]):
        assert harness.command(given) == "python -m benchmarks epoch --quick"
    assert harness.command(["estimator_cost", "--rows", "a b"]) == "python -m benchmarks estimator_cost --rows 'a b'"


@pytest.mark.parametrize("count", [1, 2, 5, 6, 9, 25, 40])
def test_the_interval_of_a_median_covers_it(count):
    """No shorter one of its kind has 95 %: by the binomial law of how many repeats fall below the median."""
    values = list(range(count))
    low, high = harness.median_interval(values)
    coin = scipy.stats.binom(count, 0.5)
    assert low + high == count - 1
    assert count < 6 or 1 - 2 * coin.cdf(low) >= 0.95
    assert count < 6 or 1 - 2 * coin.cdf(low + 1) < 0.95
    assert count >= 6 or (low, high) == (0, count - 1)


@pytest.mark.slow
def test_every_suite_runs(tmp_path, monkeypatch, capsys):
    """Small sizes, and only the peers that any installation has."""
    out = tmp_path / "out.json"
    suites = [
        "train_step",
        "epoch",
        "likelihoods",
        "evaluate",
        "estimators",
        "conjugate",
        "compile",
        "import",
        "memory",
    ]
    benchmarks_main.main([*suites, "--quick", "--large", "--repeats", "1", "--peers", "sklearn", "--json", str(out)])
    assert "hand-written" in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert list(content["suites"]) == suites
    assert all(rows for rows in content["suites"].values())
    assert content["versions"]["jax"] == jax.__version__
    assert content["command"].endswith("--quick --large --repeats 1 --peers sklearn")
    assert set(content["suites"]["epoch"][0]["ratios"]) == {"hand-written", "matrix products"}


ROOT = Path(__file__).parent.parent


# Where the tables of each result file are shown; those of the certificates in another form.
PUBLISHED = {
    "cpu": "benchmarks",
    "start": "benchmarks",
    "conjugate": "benchmarks",
    "estimators": "estimators",
    "cost_bernoulli": "estimators",
    "cost_categorical": "estimators",
    "many_draws": "estimators",
}


def test_published_tables_are_those_of_the_result_files():
    """Each table as it is printed, whole, and each line that the README takes from one."""
    files = {file.stem: file for file in (ROOT / "benchmarks/results").glob("*.json")}
    assert set(files) == set(PUBLISHED)
    lines = []
    for name, page in PUBLISHED.items():
        content, shown = table.read(files[name]), (ROOT / f"docs/{page}.md").read_text()
        assert content["complete"]
        assert table.heading(content) in shown
        for printed in table.tables(content, list(content["suites"])) if name != "estimators" else []:
            lines += printed
            assert "\n".join(printed) in shown
    of_tables = [
        line
        for line in (ROOT / "docs/benchmarks.md").read_text().splitlines()
        if line.startswith("| ") and " µs a step" in line
    ]
    measured = (ROOT / "README.md").read_text().split("Beside the same mathematics by others")[1].split("## ")[0]
    shortened = [line for line in measured.splitlines() if line.startswith("|")]
    assert len(of_tables) > 5
    assert len(shortened) >= 7
    assert set(of_tables) | set(shortened) <= set(lines)


def test_published_certificates_are_those_of_the_result_file():
    """The table of docs/estimators.md: bias and z at one point, variances at four; stars where a bias is declared."""
    rows = {row["work"]: row for row in table.read(ROOT / "benchmarks/results/estimators.json")["suites"]["estimators"]}
    shown = (ROOT / "docs/estimators.md").read_text()
    assert all(row["note"].endswith(": kept") for row in rows.values())
    assert f"({len(rows)} certificates: none is;" in shown
    printed = shown.split("| bias, as a share of the gradient (z) |")[1].split("\n\n")[0].splitlines()[2:]
    labels = {
        "score_function, leave one out, K=2": "`score_function`, leave one out, K = 2",
        "… with local signals": "the same with local signals",
        "vimco, K=2": "`vimco`, K = 2 (on the ELBO the same by theorem)",
        "unordered_set, K=2": "`unordered_set`, K = 2",
        "concrete, T=0.5": "`concrete`, T = 0.5",
    }
    for name, line in zip(certificates.CASES, printed, strict=True):
        label, *cells = (cell.strip() for cell in line.strip("| ").split("|"))
        assert label == labels.get(name, f"`{name}`")
        places = [(model, where) for model in ("6 Bernoullis", "2 categories of 4") for where in ("near", "far")]
        points = [rows.get(f"{name} on {model}, {where}") for model, where in places]
        own = points[0] or points[2]
        if name == "enumerate_latents":
            assert cells == ["0"] * 5
            assert all(row["facts"]["bias"] < 1e-12 and row["facts"]["variance"] == 0 for row in points)
            continue
        stars = "**" if "declared biased" in own["note"] else ""
        bias = f"{stars}{own['facts']['bias']:.3f} ({own['facts']['z']:.{0 if stars else 1}f}){stars}"
        assert cells == [bias, *(f"{row['facts']['variance']:.3g}" if row else "–" for row in points)]


def test_what_cannot_be_done_is_refused(tmp_path, capsys):
    """Before anything is measured, and with what would do."""
    (tmp_path / "half.json").write_text("{")
    (tmp_path / "other.json").write_text('{"command": ""}')
    for arguments, wanted in (
        (["epochs"], "no suite epochs: there are train_step, epoch"),
        (
            ["--peers", "sklearn", "memory"],
            "no peer memory: there are numpyro, torch, pythae, sklearn; name suites before",
        ),
        (["--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["--js", "x"], "unrecognized arguments: --js"),
        (["--json", str(tmp_path)], "cannot be written: Is a directory"),
        (["table", str(tmp_path / "none.json")], "cannot be read: No such file"),
        (["table", str(tmp_path / "half.json")], "half.json is no result file"),
        (["table", str(tmp_path / "other.json")], "it has no date, device, cores, versions, suites"),
        (
            ["table", str(ROOT / "benchmarks/results/cpu.json"), "--suites", "epochs"],
            "cpu.json has no epochs; it has epoch",
        ),
    ):
        with pytest.raises(SystemExit):
            benchmarks_main.main(arguments)
        assert wanted in capsys.readouterr().err


def test_a_peak_is_this_processs_own():
    """Not that of the process which started it, and forgotten on request."""
    program = "from benchmarks import peak; print(peak.mib())"
    held = np.ones(2**26, np.uint8)
    assert (
        float(
            subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT).stdout
        )
        < 60
    )
    before = peak.mib()
    assert before > 64
    del held
    peak.forget()
    kept = peak.mib()
    held = np.ones(2**27, np.uint8)
    assert peak.mib() - kept > 100
    assert held.all()


def test_what_was_measured_is_kept_when_something_ends_it(tmp_path, monkeypatch, capsys):
    """A suite that fails leaves the others their turn; Ctrl-C ends with a line; both leave files that say so."""
    done = harness.Row("done", "s", {"vaejax": [1.0, 1.1], "hand-written": [2.0, 2.1]}, {"hand-written": 1.0})

    def ended_by(error):
        def run(options):
            yield done
            raise error

        return run

    out = tmp_path / "deep" / "out.json"
    monkeypatch.setattr("benchmarks.suites.memory.run", ended_by(ValueError("no memory")))
    monkeypatch.setattr("benchmarks.suites.imports.run", lambda options: iter([done]))
    with pytest.raises(SystemExit, match="failed: memory"):
        benchmarks_main.main(["memory", "import", "--peers", "--json", str(out)])
    content = table.read(out)
    assert (content["complete"], content["failed"]) == (False, {"memory": "ValueError: no memory"})
    assert [len(rows) for rows in content["suites"].values()] == [1, 1]
    monkeypatch.setattr("benchmarks.suites.memory.run", ended_by(KeyboardInterrupt()))
    with pytest.raises(SystemExit) as ended:
        benchmarks_main.main(["memory", "import", "--peers", "--json", str(out)])
    assert ended.value.code == 130
    assert "stopped; 1 rows are in" in capsys.readouterr().err
    benchmarks_main.main(["table", str(out)])
    printed = capsys.readouterr()
    assert "was not finished" in printed.err
    assert "| done | 1.050 s | 0.51 [0.51, 0.52] (≤ 1.00: met in 2 of 2) |" in printed.out
    assert not list(out.parent.glob("*.partial"))


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
    assert "bias where it is declared, and nowhere else" in _run(certificates, monkeypatch, capsys, *few)
    found = json.loads((tmp_path / "certificates.json").read_text())
    assert [own["kept"] for own in found] == [True] * 4
    monkeypatch.setattr(certificates, "BIASED", {"disarm", "straight_through"})
    with pytest.raises(SystemExit):
        _run(certificates, monkeypatch, capsys, *few)
    assert "broken promises: disarm on 6 Bernoullis, near" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("declared", [set(), {"disarm"}])
def test_a_gradient_that_is_no_number_keeps_no_promise(monkeypatch, declared):
    def certificate(*given):
        z = {"decoder": 0.5, "encoder": math.nan, "prior": 0.5}
        return estimators.Certificate(z, z, z, z, z, 1e-3, 10)

    monkeypatch.setattr(certificates, "certificate", certificate)
    monkeypatch.setattr(certificates, "BIASED", declared)
    found = list(certificates.certificates(["6 Bernoullis"], ["disarm"], 10))
    assert [own["kept"] for own in found] == [False, False]


@pytest.mark.slow
def test_costs_are_relative_to_the_reference(tmp_path, monkeypatch, capsys):
    small = ["--repeats", "2", "--size", "4", "--pixels", "9", "--batch-size", "3", "--json"]
    for options, wanted in ((("--layers", "2"), 13), (("--categories", "2", "--rows", "unordered_set", "arsm"), 3)):
        printed = _run(estimator_cost, monkeypatch, capsys, *small, str(tmp_path / "cost.json"), *options)
        assert printed.count("9 pixels, batch 3, K=2 (ms an update, median of 2") == wanted
        rows = table.read(tmp_path / "cost.json")["suites"]["estimator_cost"]
        assert len(rows) == wanted
        times = [row["all"]["vaejax"] for row in rows]
        for row, own in zip(rows, times):
            exact = np.sqrt(np.prod(np.array(own) / np.array(times[0])))
            assert row["ratios"][estimator_cost.REFERENCE]["median"] == pytest.approx(exact, rel=1e-4)
        limits = {row["work"].split(":")[0]: row["targets"].get(estimator_cost.REFERENCE) for row in rows}
        special = {estimator_cost.REFERENCE: None, "relax": 4.0, "rebar": 3.0}
        assert limits == {name: special.get(name, 2.0) for name in limits}
        assert wanted == 3 or {"relax", "rebar"} <= set(limits)


@pytest.mark.slow
def test_the_tables_of_variance_are_printed(monkeypatch, capsys):
    monkeypatch.setattr(gradient_variance, "COUNTS", [1, 4])
    printed = _run(gradient_variance, monkeypatch, capsys, "--draws", "8")
    assert printed.count("exponent ") == 4
    assert "nan" not in printed


@pytest.mark.slow
def test_many_draws_are_measured_case_by_case(tmp_path, monkeypatch, capsys):
    few = ["--samples", "20", "--chunk", "10", "--repeats", "1", "--estimators", "pathwise", "--json"]
    out = tmp_path / "many.json"
    assert _run(many_draws, monkeypatch, capsys, *few, str(out)).count("s a gradient, once") == 2
    content = table.read(out)
    assert content["complete"]
    assert all(0.1 < row["facts"]["peak GiB"] < 4 for row in content["suites"]["many_draws"])
    ended = subprocess.CompletedProcess([], returncode=1, stdout="")
    monkeypatch.setattr(many_draws.subprocess, "run", lambda *args, **kwargs: ended)
    with pytest.raises(SystemExit, match="failed: many_draws"):
        _run(many_draws, monkeypatch, capsys, *few, str(out))
    content = table.read(out)
    assert not content["complete"]
    assert "pathwise, K=20, chunk_size=10; pathwise, K=20, all at once" in content["failed"]["many_draws"]
    for bad, said in ((["--repeats", "0"], "at least 1, got 0"), (["--json", str(tmp_path)], "Is a directory")):
        with pytest.raises(SystemExit):
            _run(many_draws, monkeypatch, capsys, *bad)
        assert said in capsys.readouterr().err
