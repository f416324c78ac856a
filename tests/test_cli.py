"""The command line as a user meets it, in processes of its own, and the run directory that it leaves."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

import jax
import numpy as np
import pytest

import vaejax
from tests.helpers import slow_unless
from vaejax.report import open_run, params_of, read_history

SMALL = ["--epochs", "3", "--samples", "20", "--hidden-sizes", "16", "--latent-size", "2"]


def start(*arguments, cwd, strict=True, **options):
    warnings = ["-W", "error::UserWarning"] if strict else []
    return subprocess.Popen(
        [sys.executable, *warnings, "-m", "vaejax.cli", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(*arguments, cwd):
    process = start(*map(str, arguments), cwd=cwd)
    out, err = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def only_run(folder):
    (directory,) = (folder / "runs").iterdir()
    return directory


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return folder, run("train", "digits", *SMALL, cwd=folder)


def test_train_digits(digits_run):
    folder, done = digits_run
    assert done.returncode == 0, done.stderr
    number = r"-\d+\.\d+ ± \d+\.\d+ \(between 357 examples; Monte Carlo ± \d+\.\d+\) nats"
    assert re.search(f"test log-likelihood +{number}", done.stdout)
    assert re.search(f"test ELBO +{number}", done.stdout)
    assert done.stderr == ""
    directory = only_run(folder)
    files = {
        "config.json",
        "data.json",
        "fit.json",
        "history.jsonl",
        "history.csv",
        "summary.json",
        "checkpoints",
        "figures",
    }
    assert {p.name for p in directory.iterdir()} - {".lock"} == files
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["test"]["log_likelihood"]["num_examples"] == 357
    assert summary["epochs"] == 3
    assert len(read_history(directory)["validation_elbo"]) == 3
    pictures = {p.stem: p.read_bytes() for p in (directory / "figures").glob("*.png")}
    assert set(pictures) == {
        "loss", "kl_per_latent", "latent", "reconstructions", "samples", "samples_ancestral", "interpolation", "manifold",
    }  # fmt: skip
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())


def test_a_run_rebuilds_its_model_likelihood_included(digits_run):
    again = open_run(only_run(digits_run[0]))
    params = params_of(again)
    x = vaejax.data.load("digits").test.x[:5]
    model = vaejax.models.vae(
        x_shape=(8, 8),
        latent_size=2,
        hidden_sizes=(16,),
        likelihood=vaejax.dists.likelihoods.binomial(16),
        dropout_rate=0.1,
    )
    a, b = (vaejax.evaluate.elbo(m, params, jax.random.key(0), x, num_samples=3) for m in (again.model, model))
    np.testing.assert_array_equal(a.estimate, b.estimate)


def test_evaluate_sample_plot(digits_run):
    folder, done = digits_run
    directory = only_run(folder)
    evaluated = run("evaluate", directory, "--samples", "20", cwd=folder)
    assert evaluated.returncode == 0, evaluated.stderr
    first, second = (
        re.search(r"log-likelihood +(-[\d.]+) ± [\d.]+ .*Carlo ± ([\d.]+)", o.stdout) for o in (done, evaluated)
    )
    errors = float(first[2]) + float(second[2])
    assert abs(float(first[1]) - float(second[1])) < 5 * errors
    assert float(first[1]) != float(second[1])
    line = json.loads((directory / "evaluations.jsonl").read_text())
    assert line["split"] == "test"
    assert f"{line['log_likelihood']['mean']:.3f}" == second[1]
    sampled = run("sample", directory, "--count", "23", "--out", "new/draws", cwd=folder)
    assert sampled.returncode == 0, sampled.stderr
    with np.load(folder / "new" / "draws.npz") as archive:
        assert archive["x"].shape == (23, 8, 8)
        assert archive["z"].shape == (23, 2)
        assert set(np.unique(archive["x"])) <= set(range(17))
    assert (folder / "new" / "draws.png").exists()
    drawn = run("plot", directory, "--only", "loss", "manifold", "--format", "pdf", "--out", "pdf", cwd=folder)
    assert drawn.returncode == 0, drawn.stderr
    assert sorted(p.name for p in (folder / "pdf").iterdir()) == ["loss.pdf", "manifold.pdf"]


@pytest.mark.slow
def test_own_table_with_missing_values_and_labels(tmp_path):
    rng = np.random.default_rng(0)
    skill = rng.normal(size=300)
    right = (rng.random((300, 6)) < 1 / (1 + np.exp(-skill[:, None] - np.linspace(-1, 1, 6)))).astype(int)
    rows = [",".join("" if rng.random() < 0.1 else str(v) for v in row) for row in right]
    school = ["north" if s > 0 else "south" for s in skill]
    lines = [f"{row},{place}" for row, place in zip(rows, school) if row.strip(",")]
    (tmp_path / "answers.csv").write_text("a,b,c,d,e,f,school\n" + "\n".join(lines))
    done = run("train", "answers.csv", "--labels", "school", "--epochs", "5", "--samples", "50", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bernoulli likelihood, 2 latent dimensions" in done.stdout
    assert re.search(r"(9|10|11)\.?\d* % of the entries are missing", done.stdout)
    directory = only_run(tmp_path)
    pictures = {p.stem for p in (directory / "figures").glob("*.png")}
    assert pictures == {"loss", "kl_per_latent", "latent", "responses", "item_fit", "item_curves"}
    again = open_run(directory)
    assert again.facts.columns == tuple("abcdef")
    assert again.facts.encode_mask
    sampled = run("sample", directory, "--count", "7", cwd=tmp_path)
    assert sampled.returncode == 0, sampled.stderr
    assert (directory / "samples.csv").read_text().splitlines()[0] == "a,b,c,d,e,f"
    (tmp_path / "answers.csv").write_text("a,b,c,d,e,f,school\n" + "\n".join(lines[1:]))
    changed = run("evaluate", directory, cwd=tmp_path)
    assert changed.returncode == 1
    assert "have changed since it was made" in changed.stderr


@pytest.mark.slow
def test_real_numbers_are_reported_in_their_own_units(tmp_path):
    """N(0, s²) columns: the log density of the data falls by Σ log s when their unit is changed by s."""
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    own = []
    for scale in (1.0, 100.0):
        np.save(tmp_path / "x.npy", x * scale)
        options = ("--epochs", "3", "--samples", "20", "--no-figures", "--runs", f"runs{scale}")
        done = run("train", "x.npy", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (directory,) = (tmp_path / f"runs{scale}").iterdir()
        own.append(json.loads((directory / "summary.json").read_text())["test"]["log_likelihood"]["mean"])
        sampled = run("sample", directory, "--count", "500", cwd=tmp_path)
        assert sampled.returncode == 0, sampled.stderr
        with np.load(directory / "samples.npz") as archive:
            np.testing.assert_allclose(archive["x"].std(axis=0), x.std(axis=0) * scale, rtol=0.3)
    assert own[0] - own[1] == pytest.approx(3 * np.log(100), abs=0.05)


def test_settings_out_and_in_again(tmp_path):
    first = run("train", "digits", *SMALL, "--beta", "2", "--save-config", "mine.json", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert json.loads((tmp_path / "mine.json").read_text())["objective"]["beta"] == 2
    second = run("train", "--config", "mine.json", "--epochs", "7", "--dry-run", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    settings = json.loads(second.stdout[second.stdout.index("{") :])
    assert settings["training"]["epochs"] == 7
    assert settings["objective"]["beta"] == 2
    assert settings["model"]["hidden_sizes"] == [16]
    assert {p.name for p in tmp_path.iterdir()} == {"mine.json"}


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_from_the_command_line(tmp_path):
    options = [
        "--epochs",
        "200",
        "--samples",
        "20",
        "--hidden-sizes",
        "16",
        "--save-every",
        "0.5",
        "--pictures-every",
        "100",
    ]
    process = start("train", "digits", *options, cwd=tmp_path, strict=False)
    while not list(tmp_path.glob("runs/*/checkpoints/epoch-*")):
        time.sleep(0.05)
        assert process.poll() is None
    process.terminate()
    out, err = process.communicate()
    assert process.returncode == 143, err
    assert "go on with: vaejax train --resume runs/digits-" in out
    assert "SIGTERM: stopping after this epoch" in err
    directory = only_run(tmp_path)
    assert not (directory / "summary.json").exists()
    refused = run("train", "--resume", directory, "--epochs", "3", cwd=tmp_path)
    assert refused.returncode == 1
    assert "by its own settings and takes no others" in refused.stderr
    done = run("train", "--resume", directory, "--no-figures", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"figures: vaejax plot {directory}" in done.stdout
    assert len(read_history(directory)["epoch"]) == 200
    assert len(list((directory / "figures" / "training").glob("*-000200.png"))) == 2
    assert not list((directory / "figures").glob("*.png"))
    again = run("train", "--resume", directory, "--no-figures", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    likelihood = [re.search(r"log-likelihood +(-[\d.]+)", o.stdout)[1] for o in (done, again)]
    assert likelihood[0] == likelihood[1]


@pytest.mark.slow
def test_progress_is_seen_in_a_terminal_and_nowhere_else(tmp_path):
    """In a pseudo-terminal the bars of training and evaluation appear on stderr; --no-progress takes them away."""
    shown = []
    for extra in ([], ["--no-progress"]):
        leader, follower = pty.openpty()
        command = [sys.executable, "-m", "vaejax.cli", "train", "digits", *SMALL, *extra]
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=follower)
        os.close(follower)
        text = b""
        while process.poll() is None or select.select([leader], [], [], 0)[0]:
            if select.select([leader], [], [], 0.1)[0]:
                try:
                    text += os.read(leader, 4096)
                except OSError:
                    break
        process.communicate()
        os.close(leader)
        shown.append(text.decode())
    assert "3/3" in shown[0]
    assert "evaluating" in shown[0]
    assert shown[1] == ""


HELP = [
    ([], ["train", "evaluate", "sample", "plot", "data", "estimators", "--debug"]),
    (
        ["train"],
        [
            "DATA",
            "--resume RUN",
            "model options",
            "--latent-size",
            "optimizer options",
            "--learning-rate",
            "--dry-run",
        ],
    ),
    (["train", "mnist"], ["(default: 300 300)", "(default: 60)"]),
    (["evaluate"], ["RUN", "--samples", "Importance samples per example"]),
    (["sample"], ["--means", "--label", "--count"]),
    (["plot"], ["--only", "--format"]),
    (["data"], ["list", "fetch", "check"]),
    (["data", "fetch"], ["DATA", "--directory"]),
]


@pytest.mark.parametrize(("command", "words"), slow_unless(lambda command, _: command in ([], ["train"]), HELP))
def test_help_reads(command, words, tmp_path):
    done = run(*command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    text = re.sub(r"[\s│]+", " ", done.stdout)
    for word in words:
        assert word in text
    assert "MISSING" not in text


def test_lists(tmp_path):
    listed = run("data", "list", "--directory", tmp_path, cwd=tmp_path).stdout
    assert "digits: " in listed
    assert "get it with: vaejax data fetch mnist" in listed
    assert "pathwise" in run("estimators", cwd=tmp_path).stdout
    assert run("--version", cwd=tmp_path).stdout == f"vaejax {vaejax.__version__}\n"
    assert "1260 train" in run("data", "check", "digits", cwd=tmp_path).stdout


def test_two_runs_have_directories_of_their_own(tmp_path):
    a, b = (vaejax.report.new_run_directory(tmp_path, "digits") for _ in range(2))
    assert a != b
    assert a.is_dir()
    assert b.is_dir()


@pytest.mark.slow
def test_a_figure_that_cannot_be_drawn_costs_no_numbers(tmp_path):
    """Twelve classes, an odd number of test images, examples that are no images."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "many.npz", x=rng.integers(0, 2, (75, 4, 4)), labels=np.arange(75) % 12)
    np.save(tmp_path / "odd.npy", rng.integers(0, 2, (75, 2, 2, 5)))
    for name in ("many.npz", "odd.npy"):
        done = run("train", name, "--epochs", "2", "--samples", "20", "--pictures-every", "1", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "test log-likelihood" in done.stdout
    assert not list((tmp_path / "runs").glob("odd*/figures/recon*"))
    assert list((tmp_path / "runs").glob("many*/figures/recon*"))


def test_the_dataset_named_decides_the_defaults_and_nothing_else_does(tmp_path):
    (tmp_path / "bin.csv").write_text("a,b\n" + "\n".join(f"{i % 2},{i // 2 % 2}" for i in range(100)))
    (tmp_path / "part.json").write_text('{"training": {"epochs": 3}}')
    for options in (["--runs", "digits"], ["--config", "part.json"]):
        done = run("train", "bin.csv", *options, "--dry-run", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "2 latent dimensions" in done.stdout
    assert "3 epochs" in done.stdout
    late = run("train", "--epochs", "3", "digits", "--dry-run", cwd=tmp_path)
    assert "16 latent dimensions" in late.stdout


def test_a_directory_of_the_users_own_is_not_emptied(tmp_path):
    from vaejax.report import job, preset

    (tmp_path / "thesis.txt").write_text("all of it")
    planned = job.plan(preset("digits"))
    with pytest.raises(TypeError, match="optimizer"):
        job.train(planned._replace(optimizer=None), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
