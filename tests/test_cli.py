"""The command line as a user meets it, and the run directory that it leaves."""

import json
import re
import subprocess
import sys

import jax
import pytest

import vaejax

SMALL = ["--epochs", "3", "--samples", "20", "--hidden-sizes", "16", "--latent-size", "2"]


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-m", "vaejax.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("likelihood", ["binomial", "bernoulli"])
def test_train_digits(tmp_path, likelihood):
    done = run("train", "digits", "--likelihood", likelihood, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"test log-likelihood +-\d+\.\d+ ± \d+\.\d+ \(between 357 examples; Monte Carlo ± \d+\.\d+\) nats", done.stdout
    )
    assert "test ELBO" in done.stdout
    assert done.stderr == ""
    (directory,) = (tmp_path / "runs").iterdir()
    assert {p.name for p in directory.iterdir()} == {
        "params",
        "summary.json",
        "loss.png",
        "reconstructions.png",
        "samples.png",
    }
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["likelihood"] == likelihood
    assert len(summary["history"]["validation_elbo"]) == 3
    assert summary["test_log_likelihood"]["num_examples"] == 357
    family = vaejax.dists.likelihoods.binomial(16) if likelihood == "binomial" else "bernoulli"
    model = vaejax.models.vae(x_shape=(8, 8), latent_size=2, hidden_sizes=(16,), likelihood=family)
    params = vaejax.train.load_params(directory / "params", model.init(jax.random.key(0), None))
    assert params["output_bias"].shape == (8, 8)
    for picture in directory.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_two_runs_have_directories_of_their_own(tmp_path):
    a, b = (vaejax.report.new_run_directory(tmp_path, "digits") for _ in range(2))
    assert a != b
    assert a.is_dir()
    assert b.is_dir()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "digit"], 2, "digits"),
        (["train"], 2, "required"),
        (["train", "digits", "--epochs", "many"], 2, "epochs"),
        (["train", "digits", "--epochs", "0"], 1, "vaejax: epochs must be at least 1, got 0"),
        (["train", "digits", "--batch-size", "5000"], 1, "vaejax: batch_size=5000 is larger than the data"),
        (["train", "digits", "--beta", "-1", "--epochs", "1"], 1, "vaejax: beta must be finite, at least 0, got -1"),
        (["train", "digits", "--samples", "0", "--epochs", "1"], 1, "vaejax: samples must be at least 1"),
        (["train", "digits", "--latent-size", "0"], 1, "vaejax: latent_size must be at least 1"),
        (["train", "digits", "--learning-rate", "1e30", "--epochs", "2"], 1, "training stopped at step"),
        (["train", "digits", "--runs", "/proc/nowhere"], 1, "vaejax: "),
    ],
)
def test_bad_usage_is_one_line(arguments, code, message, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in re.sub(r"\s+", " ", done.stderr + done.stdout)
    assert "Traceback" not in done.stderr


def test_help_reads(tmp_path):
    done = run("train", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("--latent-size", "--likelihood", "importance samples per test image", "--learning-rate"):
        assert word in done.stdout


def test_estimators_are_listed(tmp_path):
    done = run("estimators", cwd=tmp_path)
    assert done.returncode == 0
    assert "pathwise" in done.stdout
