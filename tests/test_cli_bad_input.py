"""Bad input through the command line: one line that says what came, what was wanted and what to do; never a trace."""

import json
import re
import sys

import numpy as np
import pytest

from vaejax import cli

DIGITS = ["train", "digits", "--epochs", "1", "--samples", "5", "--hidden-sizes", "8", "--latent-size", "2"]

# name: (arguments, exit code, what the message must say). {folder} is a directory with the files of `folder` below.
CASES = {
    "no command": ([], 2, "missing subcommand"),
    "unknown command": (["tain"], 2, "tain"),
    "no data": (["train"], 1, "no data named; name digits, mnist"),
    "unknown dataset": (["train", "digit"], 1, "unknown dataset 'digit'; did you mean 'digits'"),
    "unknown option": ([*DIGITS, "--epoch", "3"], 2, "--epoch"),
    "words for a number": (["train", "digits", "--epochs", "many"], 2, "epochs"),
    "a fraction for a count": (["train", "digits", "--epochs", "2.5"], 2, "epochs"),
    "unknown choice": ([*DIGITS, "--likelihood", "gauss"], 2, "likelihood"),
    "no epochs": ([*DIGITS, "--epochs", "0"], 1, "epochs must be at least 1, got 0"),
    "no samples": ([*DIGITS, "--samples", "0"], 1, "samples must be at least 1, got 0"),
    "batches too large": ([*DIGITS, "--batch-size", "5000"], 1, "batch_size=5000 is larger than the data, 1260 examples"),
    "negative beta": ([*DIGITS, "--beta", "-1"], 1, "beta must be finite, at least 0, got -1"),
    "beta not a number": ([*DIGITS, "--beta", "nan"], 1, "beta must be finite, at least 0, got nan"),
    "beta for another objective": ([*DIGITS, "--objective", "iwae", "--beta", "2"], 1, "for --objective elbo, and this is iwae"),
    "an estimator that does not serve": (
        [*DIGITS, "--objective", "iwae", "--estimator", "sticking_the_landing"],
        1,
        "use doubly_reparameterized",
    ),
    "antithetic noise without pairs": ([*DIGITS, "--noise", "antithetic"], 1, "even, got num_samples=1"),
    "negative free bits": ([*DIGITS, "--free-bits", "-1"], 1, "free_bits must be finite, at least 0"),
    "no latents": ([*DIGITS, "--latent-size", "0"], 1, "latent_size must be at least 1, got 0"),
    "no width": ([*DIGITS, "--hidden-sizes", "0"], 1, "must be at least 1"),
    "dropout of everything": ([*DIGITS, "--dropout", "1.5"], 1, "dropout"),
    "rate of nothing": ([*DIGITS, "--learning-rate", "0"], 1, "learning_rate must be finite, greater than 0, got 0"),
    "rate too large": (["train", "digits", "--epochs", "2", "--learning-rate", "1e30"], 1, "training stopped at step"),
    "longer warmup than training": ([*DIGITS, "--warmup-steps", "100"], 1, "warmup_steps must be below the 25 steps"),
    "weight decay without adamw": ([*DIGITS, "--weight-decay", "0.1"], 1, "--weight-decay is for --optimizer adamw"),
    "negative clip": ([*DIGITS, "--clip-norm", "-1"], 1, "clip_norm must be finite, greater than 0"),
    "no patience": ([*DIGITS, "--patience", "-3"], 1, "patience must be at least 1, got -3"),
    "sigma of nothing": ([*DIGITS, "--likelihood", "normal", "--sigma", "0"], 1, "scale must be finite, greater than 0"),
    "unknown sigma": ([*DIGITS, "--likelihood", "normal", "--sigma", "share"], 1, "did you mean 'shared'"),
    "convolutions over a table": (["train", "{folder}/table.csv", "--network", "conv"], 1, "need an image shape"),
    "dropout in convolutions": ([*DIGITS, "--network", "conv"], 1, "is for --network mlp; add --dropout 0"),
    "labels that are not there": (["train", "{folder}/table.csv", "--labels", "school"], 1, "school"),
    "labels for the digits": ([*DIGITS, "--labels", "y"], 1, "--labels is for files of your own"),
    "conditional without labels": (["train", "{folder}/table.csv", "--conditional"], 1, "--conditional needs labels"),
    "standardised counts": (["train", "{folder}/table.csv", "--standardize", "yes"], 1, "--standardize is for real numbers"),
    "the wrong likelihood": (["train", "{folder}/real.csv", "--likelihood", "bernoulli"], 1, "only 0 and 1"),
    "a split of too much": (["train", "{folder}/table.csv", "--split", "0.8", "0.8", "0.1"], 1, "split"),
    "a file that is not there": (["train", "{folder}/none.csv"], 1, "there is no file"),
    "a directory for a file": (["train", "{folder}/"], 1, "wanted one of .npy, .npz, .csv"),
    "a file of another kind": (["train", "{folder}/notes.pkl"], 1, "wanted one of .npy, .npz, .csv"),
    "text in a table": (["train", "{folder}/text.csv"], 1, "line 3, column 'b' is no number: 'tall'"),
    "an empty table": (["train", "{folder}/empty.csv"], 1, "empty"),
    "rows of different lengths": (["train", "{folder}/ragged.csv"], 1, "line 3"),
    "a truncated archive": (["train", "{folder}/truncated.npz"], 1, "truncated.npz"),
    "pickled objects": (["train", "{folder}/objects.npy"], 1, "object"),
    "a constant column": (["train", "{folder}/constant.csv"], 1, "constant.csv: entries never vary in train: 'b'; remove them"),
    "missing MNIST": (["train", "mnist", "--data-dir", "{folder}"], 1, "vaejax data fetch mnist"),
    "a data directory that is none": (["train", "mnist", "--data-dir", "{folder}/no"], 1, "is no directory; name the one"),
    "damaged MNIST": (["train", "mnist", "--data-dir", "{folder}/bad"], 1, "train-images-idx3-ubyte.gz"),
    "fetching what cannot be fetched": (["data", "fetch", "frey"], 1, "roweis"),
    "fetching what is unknown": (["data", "fetch", "mnst"], 1, "mnist"),
    "checking what is not there": (["data", "check", "{folder}/none.npz"], 1, "there is no file"),
    "a config that is not there": (["train", "--config", "{folder}/none.json"], 1, "No such file"),
    "a config that is no JSON": (["train", "--config", "{folder}/table.csv"], 1, "is no JSON"),
    "a config with a misspelling": (["train", "--config", "{folder}/misspelt.json"], 1, "did you mean 'epochs'"),
    "a config with a wrong kind": (["train", "--config", "{folder}/kind.json"], 1, "training.epochs must be int, got 'many'"),
    "a config with a wrong choice": (["train", "--config", "{folder}/choice.json"], 1, "optimizer.optimizer must be one of"),
    "a run that is none": (["evaluate", "{folder}"], 1, "is no run: it has no config.json"),
    "resuming what is none": (["train", "--resume", "{folder}"], 1, "is no run: it has no config.json"),
    "resuming with other settings": (["train", "--resume", "{folder}/run", "--beta", "2"], 1, "takes no others"),
    "a run whose facts are damaged": (["evaluate", "{folder}/run"], 1, "data.json is missing or damaged"),
    "sampling from what is none": (["sample", "{folder}/none"], 1, "is no run"),
    "plotting what is none": (["plot", "{folder}/none"], 1, "is no run"),
    "an unwritable directory": ([*DIGITS, "--runs", "/proc/nowhere"], 1, "the run directory cannot be written"),
    "a file for a directory": ([*DIGITS, "--runs", "{folder}/table.csv"], 1, "the run directory cannot be written"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    rng = np.random.default_rng(0)
    texts = {
        "table.csv": "a,b\n" + "\n".join(f"{i % 2},{i // 2 % 2}" for i in range(100)),
        "real.csv": "a,b\n" + "\n".join(f"{i / 7:.3f},{-i}" for i in range(100)),
        "constant.csv": "a,b\n" + "\n".join(f"{i / 7:.3f},2.5" for i in range(100)),
        "text.csv": "a,b\n1,2\n3,tall\n",
        "ragged.csv": "a,b\n1,2\n3\n",
        "empty.csv": "",
        "notes.pkl": "x",
        "misspelt.json": json.dumps({"name": "digits", "training": {"epoch": 3}}),
        "kind.json": json.dumps({"name": "digits", "training": {"epochs": "many"}}),
        "choice.json": json.dumps({"name": "digits", "optimizer": {"optimizer": "lbfgs"}}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    np.savez(folder / "truncated.npz", x=rng.normal(size=(50, 3)))
    (folder / "truncated.npz").write_bytes((folder / "truncated.npz").read_bytes()[:300])
    np.save(folder / "objects.npy", np.array([{}, []], object), allow_pickle=True)
    (folder / "bad" / "mnist").mkdir(parents=True)
    for stem in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (folder / "bad" / "mnist" / f"{stem}-{kind}-ubyte.gz").write_bytes(b"not gzip")
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text(json.dumps({"name": "digits"}))
    (folder / "run" / "data.json").write_text("{")
    return folder


DIVERGES = "rate too large"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.wants_nan if name == DIVERGES else ()) for name in CASES]
)
def test_bad_input_is_one_line(name, folder, tmp_path, monkeypatch, capsys):
    arguments, code, message = CASES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["vaejax", *(a.replace("{folder}", str(folder)) for a in arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    # sys.exit(text) prints the text and exits with 1, outside of pytest.
    shown = ended.value.code if isinstance(ended.value.code, str) else out + err
    assert (1 if isinstance(ended.value.code, str) else ended.value.code) == code, shown
    assert message.lower() in re.sub(r"\s+", " ", shown).lower()
    if code == 1:
        assert shown.startswith("vaejax: ")
        assert "\n" not in shown
    assert "Traceback" not in out + err
    if name != DIVERGES:
        assert not list(tmp_path.glob("runs/*")), "a run directory was left behind"


def test_the_trace_on_request(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vaejax", "train", "digit", "--debug"])
    with pytest.raises(SystemExit, match="did you mean 'digits'"):
        cli.main()
    assert "Traceback" in capsys.readouterr().err


def test_the_table_is_long_enough():
    assert len(CASES) >= 40
