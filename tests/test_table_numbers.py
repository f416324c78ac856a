"""Numbers of files that float32, float64 or int32 do not hold: refused by name, reported, or computed in float64."""

import json
import sys
import warnings
from fractions import Fraction

import jax
import numpy as np
import pytest

from vaejax import Batch, cli, data
from vaejax.arrays import rounded_entries
from vaejax.report import build, config, job
from vaejax.report.narrow import narrowed, shift_remark, shown_columns

ALL = (1.0, 0.0, 0.0)


def save(folder, name, content):
    path = folder / name
    if name.endswith(".npy"):
        np.save(path, content)
    elif name.endswith(".npz"):
        np.savez(path, **content)
    else:
        path.write_text(content)
    return path


def in_order(dataset):
    return np.asarray(dataset.train.x)[np.argsort(dataset.rows["train"])]


def load(path, **options):
    """x in the order of the file, and what was warned of."""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        dataset = data.load(path, split=ALL, **options)
    return in_order(dataset), [str(remark.message) for remark in remarks]


def dates(count=300, offset=1.7e9):
    rng = np.random.default_rng(0)
    z = np.round(rng.normal(size=count) * 60, 3)
    return z, np.stack([offset + z, rng.normal(size=count)], 1)


@pytest.mark.parametrize(
    "cell",
    ["9007199254740993", "-9007199254740993", "9007199254740993.0", "18446744073709551615", "12345678901234567891"],
)
@pytest.mark.parametrize("dtype", [None, "float32", "float64"])
def test_whole_numbers_beyond_float64_are_refused_in_text(tmp_path, cell, dtype):
    path = save(tmp_path, "t.csv", f"id,a\n5,2\n{cell},3\n")
    rounded = f"{float(cell):.0f}"
    assert int(rounded) != Fraction(cell)
    with pytest.raises(
        data.DataFileError, match=f"line 3, column 'id' is {cell}, which float64 rounds to {rounded}; name a"
    ):
        data.load(path, dtype=dtype)
    # Left out, or the labels, it does no harm; as a missing value neither.
    assert load(path, without="id")[0].tolist() == [[2], [3]]
    assert data.load(path, labels="id", split=ALL).label_names[-1 if cell[0] != "-" else 0] == cell
    assert load(path, missing=("", cell), dtype="float64")[0].tolist() == [[5, 2], [0, 3]]


@pytest.mark.parametrize("cell", ["9007199254740992", "1e300", "1.2345678901234567e+30", "-18014398509481984"])
def test_large_numbers_that_float64_holds_are_read(tmp_path, cell):
    x, _ = load(save(tmp_path, "t.csv", f"id,a\n5,2\n{cell},3\n"), dtype="float64")
    assert x[1, 0] == float(cell)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[2**53 + 1, 0], [3, 4]]),
        np.array([[2**64 - 1, 0], [3, 4]], np.uint64),
        np.array([[-(2**53) - 1, 0], [3, 4]]),
    ],
)
def test_integers_of_arrays_are_exact_or_refused(tmp_path, values):
    path = save(tmp_path, "x.npy", values)
    value = int(values[0, 0])
    with pytest.raises(
        data.DataFileError, match=rf"row 0, entry \(0,\) is {value}, which float64 rounds to {int(float(value))};"
    ):
        data.load(path, dtype="float64", split=ALL)
    with pytest.raises(data.DataFileError, match=rf"row 0, entry \(0,\) is (beyond int32 \()?{value}"):
        data.load(path, split=ALL)
    # Of two parts that meet in float64 too.
    path = save(tmp_path, "p.npz", {"train": np.array([[0.5, 1.0], [2.0, 3.0]]), "test": values})
    with pytest.raises(
        data.DataFileError, match=rf"array 'test', row 0, entry \(0,\) is {value}, which float64 rounds"
    ):
        data.load(path, split=ALL)
    even = save(tmp_path, "e.npy", values // 2**11 * 2**11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = in_order(data.load(even, dtype="float64", split=ALL))
    assert [int(v) for v in x[:, 0]] == np.load(even)[:, 0].tolist()


def test_whole_numbers_beyond_float32_stay_as_they_are(tmp_path):
    for first in (2**24, 2**32, 2**40):
        path = save(tmp_path, "t.csv", f"id,a\n{first},0.5\n{first + 1},1.5\n{first + 2},2.5\n")
        x, said = load(path)
        assert x[:, 0].tolist() == [first, first + 1, first + 2]
        assert len(said) == 1
        assert "float32 rounds the values of column 'id'" in said[0]
        assert "data.standardize computes in float64" in said[0]
        x, said = load(path, dtype="float32")
        assert x.dtype == np.float32
        assert "read them with dtype='float64'" in said[0]
        assert load(path, dtype="float64")[1] == []
    # A table of whole numbers alone is one of integers where int32 holds them.
    x, said = load(save(tmp_path, "t.csv", f"{2**24 + 1},1\n{2**31 - 1},2\n"))
    assert (x.dtype, x.tolist(), said) == (np.int32, [[2**24 + 1, 1], [2**31 - 1, 2]], [])


def test_a_single_rounded_number_among_many_is_reported(tmp_path):
    rows = "".join(f"{i * 1000},{i / 7:.4f}\n" for i in range(1000))
    assert load(save(tmp_path, "t.csv", "income,a\n" + rows))[1] == []
    assert "'income'" in load(save(tmp_path, "t.csv", "income,a\n" + rows + "16777217,0.5\n"))[1][0]


@pytest.mark.parametrize("name", ["t.csv", "x.npy", "x.npz", "p.npz"])
def test_columns_far_from_0_are_standardized_as_their_numbers_are(tmp_path, name):
    z, x = dates()
    if name == "t.csv":
        content = "time,b\n" + "\n".join(f"{a:.3f},{b:.17g}" for a, b in x)
    elif name == "p.npz":
        content = {"train": x[:240], "test": x[240:]}
    else:
        content = x if name == "x.npy" else {"x": x}
    with pytest.warns(UserWarning, match=r"float32 rounds the values of .*(time|0).*they stay float64"):
        dataset = data.load(save(tmp_path, name, content))
    assert dataset.train.x.dtype == np.float64
    standardized, scaling = data.standardize(dataset)
    rows = z[dataset.rows["train"]]
    mean, sd = np.mean(rows, dtype=np.longdouble), np.std(rows, dtype=np.longdouble)
    for part in ("train", "validation", "test"):
        wanted = (z[dataset.rows[part]] - mean) / sd
        came = getattr(standardized, part).x
        assert came.dtype == np.float32
        np.testing.assert_allclose(came[:, 0], wanted.astype(float), atol=2e-6)
    np.testing.assert_allclose(scaling.mean[0], 1.7e9 + float(mean), rtol=0, atol=1e-6)
    np.testing.assert_allclose(scaling.scale[0], float(sd), rtol=1e-7)
    # The Jacobian is that of the exact scale.
    jacobian = data.log_scale_sum(scaling, standardized.test)
    np.testing.assert_allclose(jacobian, np.log(scaling.scale).sum(), rtol=1e-6)


def test_what_float32_loses():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(1000, 1))
    holes = rng.random((1000, 1)) > 0.5
    cases = {
        "near 0": (z, False),
        "a hundred deviations off": (100 + z, False),
        "distinct values": (1e6 + z, True),
        "everything": (1e9 + z, True),
        "spread": (np.round(z) * 100 + 1.7e9 + 0.5, True),
        "two groups": (np.where(holes, 0.0, 1e9 + z), True),
        "tiny": (z * 1e-46, True),
        "small": (z * 1e-30, False),
        "whole": (np.round(z * 1e6), False),
        "whole and large": (np.round(z * 1e8), True),
        "powers of 2": (2.0 ** np.round(40 + z), False),
        "constant": (np.full((1000, 1), 0.1), False),
        "no value": (np.full((1000, 1), np.nan), False),
        "with holes": (np.where(holes, np.nan, 1e9 + z), True),
        "narrow already": ((1e9 + z).astype(np.float32), False),
        "integers": (np.round(z * 1e8).astype(np.int32), True),
        "small integers": (np.round(z * 100).astype(np.int32), False),
    }
    for name, (x, lossy) in cases.items():
        assert rounded_entries(x, integers=True).tolist() == [lossy], name
    # What is masked is not compared.
    x = np.where(holes, 1e9 + z, z)
    assert rounded_entries(x).item()
    assert not rounded_entries(x, ~holes).item()


def test_a_million_ordinary_numbers_are_not_reported():
    x = np.random.default_rng(0).uniform(0.5, 1, size=(1_000_000, 1))
    narrow = x.astype(np.float32)
    # Some values coincide in float32, as they do in any sample of this size.
    assert len(np.unique(narrow)) < 0.99 * len(x)
    assert not rounded_entries(x).any()
    # A thousand deviations from 0, the same loss is reported.
    assert len(np.unique((1e8 + 1e6 * x).astype(np.float32))) < 0.99 * len(x)
    assert rounded_entries(1e8 + 1e6 * x).all()


def test_groups_that_stay_rounded_after_standardization_are_reported():
    rng = np.random.default_rng(0)
    x = np.where(rng.random((400, 1)) < 0.5, 0.0, 1e9 + rng.normal(size=(400, 1)))
    rows = Batch(x)
    with pytest.warns(
        UserWarning, match=r"mine, standardized: float32 rounds the values of column 'a' .*stand for missing ones"
    ):
        data.standardize(data.Dataset(rows, rows, rows, None, None, "mine", columns=("a",)))


def test_empty_parts_are_standardized():
    x = np.random.default_rng(0).normal(size=(30, 2))
    none = Batch(x[:0], mask=np.ones((0, 2), bool))
    standardized, _ = data.standardize(data.Dataset(Batch(x), none, none, None, None, "mine"))
    assert [len(part.x) for part in standardized[:3]] == [30, 0, 0]
    assert standardized.test.x.shape == (0, 2)


def test_a_constant_of_large_numbers_is_named():
    x = np.stack([np.full(20, 1.7e9 + 0.1), np.arange(20.0)], 1)
    rows = Batch(x)
    with pytest.raises(ValueError, match="entries never vary in train: 'a'; remove them"):
        data.standardize(data.Dataset(rows, rows, rows, None, None, "mine", columns=("a", "b")))


def table(folder, offset=1.7e9, rows=200):
    z, x = dates(rows, offset)
    path = save(folder, "t.csv", "time,b\n" + "\n".join(f"{a:.3f},{b:.6f}" for a, b in x))
    return z, path


def settings(path, **model):
    return config.RunConfig(name=str(path), model=config.Model(hidden_sizes=(4,), **model))


def test_a_run_reads_columns_far_from_0_after_a_shift(tmp_path):
    z, path = table(tmp_path)
    dataset, facts = build.open_data(settings(path))
    assert (facts.likelihood, facts.offset[1]) == ("normal", 0.0)
    assert abs(facts.offset[0] - 1.7e9) < 60
    shift = facts.offset[0] - 1.7e9
    for part in ("train", "validation", "test"):
        x = getattr(dataset, part).x
        assert x.dtype == np.float32
        np.testing.assert_allclose(x[:, 0], z[dataset.rows[part]] - shift, rtol=1e-6, atol=1e-5)
    rows = z[dataset.rows["train"]]
    np.testing.assert_allclose(facts.scale[0], rows.std(), rtol=1e-5)
    np.testing.assert_allclose(facts.mean[0] + shift, rows.mean(), atol=1e-4)
    # Through JSON and back, as a run keeps them.
    build.write_facts(tmp_path / "data.json", facts)
    assert build.read_facts(tmp_path / "data.json") == facts
    assert shift_remark(facts.columns, facts.offset).endswith(f"'time − {facts.offset[0]:.0f}'")
    assert shown_columns(None, facts.offset) == (f"x_0 − {facts.offset[0]:.0f}", "x_1")
    assert shown_columns(facts.columns, None) == facts.columns


def test_densities_of_shifted_columns_are_those_of_numbers_near_0(tmp_path):
    """The same rows near 0 and at 1.7e9: the model's log p(x|z) and its posterior must agree."""
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    _, far = table(tmp_path / "far")
    _, near = table(tmp_path / "near", offset=0.0)
    terms = []
    for path in (far, near):
        dataset, facts = build.open_data(settings(path))
        model = build.build_model(settings(path), facts)
        params = model.init(jax.random.key(0), dataset.train)
        posterior = model.posterior(params, dataset.test.x)
        z = posterior.mean()[None]
        terms.append((model.likelihood(params, z).log_prob(dataset.test.x), posterior.mean()))
    assert np.ptp(terms[1][0]) > 1
    for first, second in zip(*terms):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)


def test_ordinary_tables_are_read_as_before(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal([3.0, -70.0], [1.0, 20.0], (100, 2))
    path = save(tmp_path, "t.csv", "a,b\n" + "\n".join(f"{a:.5f},{b:.5f}" for a, b in x))
    dataset, facts = build.open_data(settings(path))
    direct = data.load(path)
    assert facts.offset is None
    for part, other in zip(dataset[:3], direct[:3]):
        assert part.x.dtype == np.float32
        np.testing.assert_array_equal(part.x, other.x)
    scaling = data.standardize(direct)[1]
    np.testing.assert_array_equal(facts.mean, scaling.mean.astype(np.float32))
    # Facts of runs from before have no offset.
    content = json.loads(json.dumps(facts._asdict()))
    del content["offset"]
    (tmp_path / "data.json").write_text(json.dumps(content))
    assert build.read_facts(tmp_path / "data.json") == facts


def test_other_likelihoods_report_what_is_rounded(tmp_path):
    path = save(tmp_path, "t.csv", "a,b\n" + "\n".join(f"{2**24 + i},{i}" for i in range(100)))
    with pytest.warns(UserWarning, match="float32 rounds the values of column 'a'"):
        dataset, facts = build.open_data(settings(path, likelihood="poisson"))
    assert (dataset.train.x.dtype, facts.offset) == (np.int32, None)
    # A normal one reads them after a shift.
    dataset, facts = build.open_data(settings(path))
    assert dataset.train.x.dtype == np.float32
    wanted = 2**24 + dataset.rows["train"]
    np.testing.assert_array_equal(dataset.train.x[:, 0].astype(float) + facts.offset[0], wanted)


def test_numbers_beyond_float32_are_named():
    rows = Batch(np.array([[1e39, 0.5], [1.0, 2.0]]))
    with pytest.raises(ValueError, match=r"mine: 'a' holds 1e\+39, which is beyond float32; rescale the data"):
        narrowed(data.Dataset(rows, rows, rows, None, None, "mine", columns=("a", "b")), shift=False)


@pytest.mark.slow
def test_parts_without_rows_on_the_command_line(tmp_path, monkeypatch, capsys):
    _, path = table(tmp_path, rows=60)
    runs = tmp_path / "runs"

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["vaejax", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert ended.value.code == 0, (ended.value.code, out, err)
        return out

    quick = ("--epochs", 1, "--samples", 3, "--hidden-sizes", 3, "--batch-size", 20)
    out = call("train", path, "--split", 1, 0, 0, *quick, "--runs", runs, "--no-figures")
    assert "train log-likelihood" in out
    (run,) = runs.glob("*")
    summary = json.loads((run / "summary.json").read_text())
    assert {"train", "validation", "test"} & set(summary) == {"train"}
    assert summary["best_epoch"] == 0
    assert summary["train"]["log_likelihood"]["num_examples"] == 60
    assert "train ELBO" in call("evaluate", run, "--samples", 3)
    assert json.loads((run / "evaluations.jsonl").read_text())["split"] == "train"
    assert "latent.png" in call("plot", run, "--only", "latent")
    call("sample", run, "--count", 2)
    drawn = np.loadtxt(run / "samples.csv", delimiter=",", skiprows=1)
    assert (abs(drawn[:, 0] - 1.7e9) < 1000).all()
    monkeypatch.setattr(sys, "argv", ["vaejax", "evaluate", str(run), "--split", "test"])
    with pytest.raises(SystemExit, match=r"the test part of t.csv is empty \(--split 1 0 0\); use --split train"):
        cli.main()


def test_parts_without_rows_in_the_library(tmp_path):
    _, path = table(tmp_path, offset=0.0, rows=60)
    for split in ((1, 0, 0), (0.5, 0, 0.5), (0.5, 0.5, 0)):
        dataset = data.load(path, split=split)
        counts = [len(part.x) for part in dataset[:3]]
        assert counts == [round(60 * share) for share in split]
        assert data.describe(dataset).num_train == counts[0]
        standardized, _ = data.standardize(dataset)
        assert [len(part.x) for part in standardized[:3]] == counts
        assert data.check(path, split=split).num_test == counts[2]
        plan = job.plan(
            config.RunConfig(name=str(path), data=config.Data(split=split), training=config.Training(batch_size=10))
        )
        reported = "test" if counts[2] else "validation" if counts[1] else "train"
        assert job.reported_part(plan.dataset) == reported
        assert len(job.prepared(plan.config, plan.facts, plan.dataset, reported).x)
    with pytest.raises(
        ValueError, match="--patience waits for a better validation ELBO, and the validation part is empty"
    ):
        job.plan(config.RunConfig(name=str(path), data=config.Data(split=ALL), training=config.Training(patience=3)))
