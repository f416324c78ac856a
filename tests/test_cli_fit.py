"""``vaejax fit``: its numbers against dense Gaussians and against the files that it leaves; its refusals in one line."""

import csv
import dataclasses
import json
import re
import shutil
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from vaejax import cli, data
from vaejax.conjugate import ppca, varimax
from vaejax.report import exact, fit_options
from vaejax.report.options import in_flags

NAMES = ["a", "b", "two words"]
GROUPS = np.array(["east", "north", "west"])


def write_csv(path, x, holes=None, labels=None, names=NAMES):
    holes = np.zeros(x.shape, bool) if holes is None else holes
    with open(path, "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow([*names, *([] if labels is None else ["group"])])
        for i, row in enumerate(x):
            cells = ["" if hole else f"{value:.4f}" for value, hole in zip(row, holes[i])]
            rows.writerow([*cells, *([] if labels is None else [labels[i]])])
    return np.round(x, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 120)
    x = rng.normal(size=(120, 3)) * [1.0, 20.0, 0.5] + np.array([[0.0, 0.0, 5.0], [6.0, 90.0, 5.0]])[group]
    loadings = rng.normal(size=(2, 6))
    factors = rng.normal(size=(150, 2)) @ loadings + rng.normal(size=(150, 6)) * np.linspace(0.5, 1.5, 6)
    holes = rng.random(factors.shape) < 0.15
    holes[:, 0] &= ~holes[:, 1:].all(1)
    names = [f"item{j}" for j in range(6)]
    saved = {
        "groups": (write_csv(folder / "groups.csv", x, labels=GROUPS[group]), group),
        "items": (write_csv(folder / "items.csv", factors, names=names), None),
        "holes": (write_csv(folder / "holes.csv", factors, holes, names=names), holes),
    }
    write_csv(folder / "constant.csv", np.concatenate([x, np.ones((120, 1))], 1), names=["a", "b", "c", "my flag"])
    write_csv(folder / "dependent.csv", x[:, [0, 1, 0]], names=["a", "b", "c"])
    write_csv(folder / "few.csv", x[:12])
    wide = [f"c{j}" for j in range(10)]
    write_csv(folder / "short.csv", rng.normal(size=(7, 10)), names=wide)
    write_csv(folder / "unseen.csv", x, np.broadcast_to([False, False, True], x.shape), names=["a", "b", "c"])
    (folder / "text.csv").write_text("a,b\n1,2\n3,tall\n")
    (folder / "quoted.csv").write_text("a,o'clock\n" + "".join(f"{i * i},1\n" for i in range(20)))
    (folder / "plain.csv").write_text("1,2\n3,4\n5,7\n")
    return folder, saved


def fit(*arguments, monkeypatch, folder, capsys, tmp_path):
    """The command in this process: what it printed, on standard output and error, and the directory that it made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["vaejax", "fit", *(str(a).replace("{folder}", str(folder)) for a in arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    if isinstance(ended.value.code, str):
        return ended.value.code, err, 1
    (directory,) = (tmp_path / "runs").iterdir()
    return out, err, directory


def read(directory):
    with open(directory / "rows.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    with np.load(directory / "params.npz") as stored:
        params = dict(stored)
    return rows, params, json.loads((directory / "summary.json").read_text())


def column(rows, name):
    return np.array([float(row[name]) for row in rows])


def documented(name):
    """A function of docs/command-line.md."""
    text = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text()
    namespace = {}
    exec(next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if name in block), namespace)
    return namespace[name]


def check_means(rows, summary, out):
    """What is printed and summarised are the means over the rows of each part."""
    density, parts = column(rows, "log_density"), np.array([row["part"] for row in rows])
    for part in ("train", "test"):
        values = density[parts == part]
        mean = summary["log_likelihood"][part]
        assert mean["mean"] == pytest.approx(values.mean(), rel=1e-6)
        assert mean["standard_error"] == pytest.approx(values.std(ddof=1) / len(values) ** 0.5, rel=1e-6)
        assert re.search(
            rf"{part} +log-likelihood +{values.mean():.3f} ± .* \(between {len(values)} examples\) nats", out
        )


@pytest.mark.parametrize("standardize", [False, True])
def test_mixtures(standardize, folder, monkeypatch, capsys, tmp_path):
    where, saved = folder
    options = ["--labels", "group", "--components", "1", "2", "--starts", "3"] + ["--standardize"] * standardize
    out, err, directory = fit(
        "gmm", "{folder}/groups.csv", *options, *["--no-figures"] * standardize, folder=where, monkeypatch=monkeypatch,
        capsys=capsys, tmp_path=tmp_path,
    )  # fmt: skip
    assert err == ""
    rows, params, summary = read(directory)
    x, group = saved["groups"]
    scaled = (x - params["column_mean"]) / params["column_scale"]
    assert (params["column_scale"] != 1).all() == standardize
    joint = np.stack([
        np.log(weight) + multivariate_normal.logpdf(scaled, mean, covariance)
        for weight, mean, covariance in zip(params["weight"], params["mean"], params["covariance"])
    ], 1)  # fmt: skip
    # In the order of the file, in its own units.
    dense = logsumexp(joint, 1) - np.log(params["column_scale"]).sum()
    np.testing.assert_allclose(column(rows, "log_density"), dense, rtol=1e-6)
    np.testing.assert_allclose(column(rows, "p_1"), np.exp(joint - logsumexp(joint, 1, keepdims=True))[:, 1], atol=1e-6)
    assert [row["label"] for row in rows] == GROUPS[group].tolist()
    assert column(rows, "row").tolist() == list(range(120))
    assert column(rows, "component").tolist() == joint.argmax(1).tolist()
    check_means(rows, summary, out)
    assert summary["components"] == 2
    assert summary["rows"] == {"train": 84, "validation": 12, "test": 24}
    chosen = summary["candidates"][1]
    train = np.array([row["part"] for row in rows]) == "train"
    assert chosen["parameters"] == 1 + 2 * 3 + 2 * 6
    assert chosen["bic"] == pytest.approx(19 * np.log(84) - 2 * dense[train].sum(), rel=1e-6)
    assert chosen["aic"] == pytest.approx(2 * 19 - 2 * dense[train].sum(), rel=1e-6)
    assert summary["adjusted_rand_index"]["test"] > 0.9
    assert "agreement with group (adjusted Rand index)" in out
    assert "2 components, of smallest BIC:" in out
    if standardize:
        found = documented("responsibilities")(directory, x)
        np.testing.assert_allclose(found[:, 1], column(rows, "p_1"), atol=1e-4)
    figures = set() if standardize else {"mixture.png", "fit_trace.png"}
    assert {path.name for path in directory.glob("figures/*")} == figures


def dense_log_prob(params, x, holes, noise):
    covariance = params["weight"] @ params["weight"].T + np.diag(noise)
    return np.array([
        multivariate_normal.logpdf(row[~hole], params["mean"][~hole], covariance[np.ix_(~hole, ~hole)])
        for row, hole in zip(x, holes)
    ])  # fmt: skip


def test_probabilistic_pca_with_missing_cells(folder, monkeypatch, capsys, tmp_path):
    where, saved = folder
    out, err, directory = fit(
        "ppca", "{folder}/holes.csv", "--latents", "2", "--standardize", "--tolerance", "1e-5", "--no-figures", folder=where,
        monkeypatch=monkeypatch, capsys=capsys, tmp_path=tmp_path,
    )  # fmt: skip
    assert err == ""
    rows, params, summary = read(directory)
    x, holes = saved["items"][0], saved["holes"][1]
    scaled = (x - params["column_mean"]) / params["column_scale"]
    dense = dense_log_prob(params, scaled, holes, np.full(6, params["variance"]))
    dense = dense - (~holes) @ np.log(params["column_scale"])
    np.testing.assert_allclose(column(rows, "log_density"), dense, rtol=1e-6)
    check_means(rows, summary, out)
    parts = np.array([row["part"] for row in rows])
    seen = np.where(holes, np.nan, x)[parts == "train"]
    np.testing.assert_allclose(params["column_mean"], np.nanmean(seen, 0), rtol=1e-6)
    np.testing.assert_allclose(params["column_scale"], np.nanstd(seen, 0), rtol=1e-6)
    assert summary["latents"] == 2
    assert summary["candidates"][0]["parameters"] == 6 + 6 * 2 - 1 + 1
    assert list(params["column_names"]) == [f"item{j}" for j in range(6)]
    # Rows with fewer cells say less of their latents.
    assert np.corrcoef(column(rows, "sd_0"), holes.sum(1))[0, 1] > 0.5
    # A spectrum needs complete rows.
    planned = exact.plan(fit_options.Ppca(dataset=str(where / "holes.csv")))
    assert planned.sizes == [1, 2, 3, 4, 5]
    with jax.enable_x64(True):
        stored = ppca.Ppca(*(params[name] for name in ppca.Ppca._fields))
        assert set(planned.kind.drawings(stored, planned.options, planned.table)) == {"latent", "loadings"}


def test_factor_analysis(folder, monkeypatch, capsys, tmp_path):
    where, saved = folder
    out, err, directory = fit(
        "fa", "{folder}/items.csv", "--without", "item5", "--latents", "1", folder=where, monkeypatch=monkeypatch,
        capsys=capsys, tmp_path=tmp_path,
    )  # fmt: skip
    assert err == ""
    rows, params, summary = read(directory)
    x = saved["items"][0][:, :5]
    dense = dense_log_prob(params, x, np.zeros(x.shape, bool), params["noise"])
    np.testing.assert_allclose(column(rows, "log_density"), dense, rtol=1e-6)
    precision = 1 + params["weight"].T @ (params["weight"] / params["noise"][:, None])
    score = (x - params["mean"]) @ (params["weight"] / params["noise"][:, None]) / precision
    np.testing.assert_allclose(column(rows, "z_0"), score[:, 0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(column(rows, "sd_0"), precision[0, 0] ** -0.5, rtol=1e-6)
    check_means(rows, summary, out)
    assert summary["columns"] == [f"item{j}" for j in range(5)]
    assert summary["candidates"][0]["parameters"] == 15
    assert summary["candidates"][0]["converged"]
    assert "smallest BIC" not in out
    assert {path.stem for path in directory.glob("figures/*")} == {"latent", "fit_trace", "loadings"}
    with open(directory / "loadings.csv", newline="") as stream:
        loadings = list(csv.DictReader(stream))
    assert [row["column"] for row in loadings] == [f"item{j}" for j in range(5)]
    implied = np.diag(params["weight"] @ params["weight"].T) + params["noise"]
    np.testing.assert_allclose(column(loadings, "z_0"), params["weight"][:, 0] / implied**0.5, rtol=1e-6)
    np.testing.assert_allclose(column(loadings, "shared"), 1 - params["noise"] / implied, rtol=1e-6)
    assert re.search(rf"item3 +{column(loadings, 'z_0')[3]:.2f} +{column(loadings, 'shared')[3]:.2f}\n", out)
    assert "(not rotated)" in out


def test_loadings_are_turned_without_a_change_of_the_likelihood(folder):
    where, _ = folder
    options = fit_options.Fa(dataset=str(where / "items.csv"), latents=(2,), tolerance=1e-7, rotation="none")
    planned = exact.plan(options)
    with jax.enable_x64(True):
        one = exact.fit_one(planned, 2)
        turned = exact.fit_one(planned._replace(options=dataclasses.replace(options, rotation="varimax")), 2)
        wanted = varimax(one.params.weight)
        np.testing.assert_allclose(turned.params.weight, wanted, atol=1e-9)
        np.testing.assert_allclose(turned.log_prob["test"], one.log_prob["test"], rtol=1e-9)
        assert np.abs(wanted - one.params.weight).max() > 0.1
        weight, noise = np.asarray(one.params.weight), np.asarray(one.params.noise)
        assert one.log_likelihood == pytest.approx(float(one.result.objective), rel=1e-9)
    inner = weight.T @ (weight / noise[:, None])
    assert abs(inner[0, 1]) < 1e-9 * inner[0, 0]
    assert inner[0, 0] > inner[1, 1]
    assert (weight.max(0) == np.abs(weight).max(0)).all()


def test_images_without_names_and_a_closed_form(monkeypatch, capsys, tmp_path):
    digits = data.load("digits")
    np.savez(tmp_path / "small.npz", x=digits.train.x[:60, 2:5, 2:5], labels=digits.labels["train"][:60])
    _, err, directory = fit(
        "ppca", "small.npz", "--latents", "2", "--no-figures", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys,
        tmp_path=tmp_path,
    )  # fmt: skip
    assert err == ""
    rows, params, summary = read(directory)
    assert list(params["column_names"]) == [f"x_{j}" for j in range(9)]
    x = digits.train.x[:60, 2:5, 2:5].reshape(60, 9)[column(rows, "row").astype(int)]
    dense = dense_log_prob(params, x, np.zeros(x.shape, bool), np.full(9, params["variance"]))
    np.testing.assert_allclose(column(rows, "log_density"), dense, rtol=1e-6)
    assert "steps" not in summary["candidates"][0]
    assert [row["label"] for row in rows] == [str(label) for label in digits.labels["train"][:60]]


def test_warnings_say_which_fit_in_one_line(folder, monkeypatch, capsys, tmp_path):
    where, _ = folder
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        _, err, _ = fit(
            "gmm", "{folder}/few.csv", "--components", "1", "5", "--starts", "2", "--no-figures", folder=where,
            monkeypatch=monkeypatch, capsys=capsys, tmp_path=tmp_path,
        )  # fmt: skip
    lines = err.strip().splitlines()
    assert len(lines) == 1
    assert re.match(r"warning: 5 components: \d+ components? collapsed .*--prior-count 1", lines[0])


def test_steps_that_do_not_suffice_and_factors_that_explain_a_column_whole(folder):
    where, _ = folder
    planned = exact.plan(fit_options.Fa(dataset=str(where / "items.csv"), latents=(1,), max_steps=3))
    with jax.enable_x64(True):
        with pytest.warns(UserWarning, match="1 latent: EM had not converged after 3 steps; raise --max-steps"):
            exact.fit_one(planned, 1)
        x = np.array(planned.table.parts["train"].x)
        x[:, 1:] = x[:, :1] + np.random.default_rng(0).normal(size=x[:, 1:].shape)
        parts = {**planned.table.parts, "train": planned.table.parts["train"]._replace(x=x)}
        options = fit_options.Fa(dataset="", latents=(1,))
        planned = planned._replace(table=planned.table._replace(parts=parts), options=options)
        with pytest.warns(UserWarning, match="1 latent: the factors explain 'item0' whole"):
            exact.fit_one(planned, 1)


def test_sizes_that_nobody_asked_for_are_left_out_where_they_are_refused(tmp_path):
    """Columns of rank 3: three latents leave no noise."""
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (40, 3)) @ rng.integers(-3, 3, (3, 6)).astype(float)
    np.save(tmp_path / "flat.npy", x)
    where = str(tmp_path / "flat.npy")
    planned = exact.plan(fit_options.Ppca(dataset=where))
    assert planned.sizes == [1, 2, 3, 4, 5]
    with jax.enable_x64(True):
        with pytest.warns(UserWarning, match="left out") as told:
            assert [one.size for one in exact.fit_all(planned)] == [1, 2]
        assert [str(warning.message)[:47] for warning in told] == [
            f"{q} latents left out: {q} latent dimensions explain" for q in (3, 4, 5)
        ]
        with pytest.raises(ValueError, match="3 latent dimensions explain all 28 rows"):
            exact.fit_all(exact.plan(fit_options.Ppca(dataset=where, latents=(1, 3))))
        parts = {part: batch._replace(x=batch.x[:, :1] * [1.0, 2.0]) for part, batch in planned.table.parts.items()}
        with pytest.raises(ValueError, match="1 latent dimension explains"):
            exact.fit_all(planned._replace(table=planned.table._replace(parts=parts), sizes=[1]))


def test_no_larger_size_is_proposed_where_it_was_refused(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "flat.npy", rng.normal(size=(40, 3)) @ rng.integers(-3, 3, (3, 9)).astype(float))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        out, err, _ = fit(
            "ppca",
            "flat.npy",
            "--no-figures",
            folder=tmp_path,
            monkeypatch=monkeypatch,
            capsys=capsys,
            tmp_path=tmp_path,
        )
    assert "2 latents, of smallest BIC" in out
    assert "the largest tried" not in out
    assert err.count("left out") == 3


def test_columns_that_number_the_rows_whatever_else_is_missing(tmp_path):
    rng = np.random.default_rng(0)
    x = np.c_[np.arange(30), rng.normal(size=30), np.arange(30) + 0.5, rng.permutation(30)]
    x[3, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.warns(UserWarning, match="numbers the rows") as told:
        exact.plan(fit_options.Ppca(dataset=str(tmp_path / "x.npy")))
    assert [str(one.message).split("'")[1] for one in told] == ["x_0", "x_3"]


def test_text_columns_all_rows_and_components_for_people(tmp_path, monkeypatch, capsys):
    """Two columns of text, 1e8 added to the numbers, a column that numbers the rows, nothing held out."""
    rng = np.random.default_rng(3)
    group = rng.integers(0, 2, 60)
    x = np.round(rng.normal(size=(60, 2)) + 8 * group[:, None], 4) + 1e8
    with open(tmp_path / "big.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["name", "a", "b", "note", "id"])
        rows.writerows([f"n{i}", *map(repr, map(float, row)), "so so", i + 1] for i, row in enumerate(x))
    command = ["gmm", "big.csv", "--components", "2", "--split", "1", "0", "0", "--starts", "2"]
    here = {"folder": tmp_path, "monkeypatch": monkeypatch, "capsys": capsys, "tmp_path": tmp_path}
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        out, err, directory = fit(*command, "--without", "name", "note", **here)
    remark = "column 'id' numbers the rows from 1 to 60; if it says nothing else, leave it out: --without id"
    assert err == f"warning: big.csv: {remark}\n"
    assert "test" not in out.split("2 components")[1].split("components, their weights")[0]
    assert "validation" not in out.split("components   log-likelihood")[1]
    with open(directory / "components.csv", newline="") as stream:
        sheet = list(csv.DictReader(stream))
    _, params, summary = read(directory)
    np.testing.assert_allclose(column(sheet, "weight"), params["weight"], rtol=1e-6)
    np.testing.assert_allclose(column(sheet, "b, mean") - 1e8, params["mean"][:, 1] - 1e8, atol=1e-6)
    np.testing.assert_allclose(column(sheet, "a, sd"), params["covariance"][:, 0, 0] ** 0.5, rtol=1e-12)
    # The terminal tells the components apart, too.
    for k, mean in enumerate(params["mean"]):
        told = next(line for line in out.splitlines() if re.match(rf"{k} +0\.", line)).split()
        np.testing.assert_allclose(np.array(told[2:4], float) - 1e8, mean[:2] - 1e8, atol=0.01)
    assert "(3 more columns in components.csv)" in out
    assert summary["rows"] == {"train": 60, "validation": 0, "test": 0}
    assert set(summary["log_likelihood"]) == {"train"}
    shutil.rmtree(tmp_path / "runs")
    # Nothing is lost to rounding: the same likelihood as of the numbers without the 1e8.
    fit(*command, "--without", "name", "note", "id", "--no-figures", **here)
    _, params, summary = read(next((tmp_path / "runs").iterdir()))
    dense = logsumexp([
        np.log(weight) + multivariate_normal.logpdf(x - 1e8, mean - 1e8, covariance)
        for weight, mean, covariance in zip(params["weight"], params["mean"], params["covariance"])
    ], axis=0)  # fmt: skip
    assert summary["log_likelihood"]["train"]["mean"] == pytest.approx(dense.mean(), rel=1e-6)
    np.testing.assert_allclose(
        np.sort(params["mean"][:, 0]) - 1e8, [x[group == k, 0].mean() - 1e8 for k in (0, 1)], atol=0.01
    )


def test_rows_without_an_answer_are_left_out_and_counted(folder, tmp_path):
    options = fit_options.Table(without=tuple(f"item{j}" for j in range(2, 6)))
    options = fit_options.Ppca(dataset=str(folder[0] / "holes.csv"), table=options)
    with pytest.warns(UserWarning, match="rows without an observed value are left out") as told:
        planned = exact.plan(options)
    x, holes = (folder[1]["holes"][0], folder[1]["holes"][1])
    empty = holes[:, :2].all(1)
    assert f"{empty.sum()} rows without an observed value are left out, the first: " in str(told[0].message)
    assert sorted(np.concatenate(list(planned.table.places.values())).tolist()) == np.flatnonzero(~empty).tolist()
    np.save(tmp_path / "holes.npy", np.where(holes, np.nan, x))
    options = fit_options.Table(without=tuple(f"x_{j}" for j in range(2, 6)))
    with pytest.warns(UserWarning, match=f"{empty.sum()} rows without an observed value are left out"):
        planned = exact.plan(fit_options.Ppca(dataset=str(tmp_path / "holes.npy"), table=options))
    for part, batch in planned.table.parts.items():
        rows = planned.table.places[part]
        np.testing.assert_array_equal(
            np.ones(batch.x.shape, bool) if batch.mask is None else batch.mask, ~holes[rows][:, :2]
        )
        np.testing.assert_array_equal(batch.x, np.where(holes, 0, x)[rows][:, :2])
    # Rows that are complete but for those left out are complete.
    flat = np.where(np.arange(150)[:, None] == 7, np.nan, x)
    np.save(tmp_path / "flat.npy", flat)
    with pytest.warns(UserWarning, match="1 row without an observed value is left out: .*row 7$"):
        planned = exact.plan(fit_options.Gmm(dataset=str(tmp_path / "flat.npy")))
    assert not planned.table.missing


def test_the_largest_size_tried_is_remarked(folder, monkeypatch, capsys, tmp_path):
    where, _ = folder
    settings = ["--latents", "1", "2", "--no-figures", "--rotation", "none"]
    out, _, _ = fit(
        "ppca",
        "{folder}/items.csv",
        *settings[:4],
        folder=where,
        monkeypatch=monkeypatch,
        capsys=capsys,
        tmp_path=tmp_path,
    )
    assert "2 latents, of smallest BIC:\n(the largest tried: more may be better still, --latents 3 4 5)" in out
    found = re.search(r"the 2 directions kept hold ([\d.]+) % of the variance", out)
    rows, params, _ = read(next((tmp_path / "runs").iterdir()))
    train = np.array([row["part"] for row in rows]) == "train"
    values = np.linalg.eigvalsh(np.cov(folder[1]["items"][0][train].T))
    assert float(found[1]) == pytest.approx(100 * values[-2:].sum() / values.sum(), abs=0.06)
    assert params["weight"].shape == (6, 2)


def test_a_fit_that_collapsed_is_chosen_only_where_all_did():
    def candidate(collapsed, log_likelihood):
        class Result:
            pass

        Result.collapsed = collapsed
        return exact.Candidate(1, None, Result(), {"train": np.full(10, log_likelihood)}, 3, 0.0)

    good, better, nan = candidate(0, -3.0), candidate(2, 5.0), candidate(0, np.nan)
    assert exact._choose([better, good, nan]) is good
    assert exact._choose([better]) is better
    with pytest.raises(ValueError, match="no fit has a finite log-likelihood"):
        exact._choose([nan])


CASES = {
    "no file": (["gmm", "{folder}/none.csv"], "there is no file"),
    "an unknown dataset": (["gmm", "digit"], "did you mean 'digits'"),
    "an unknown column of labels": (["gmm", "{folder}/groups.csv", "--labels", "grop"], "did you mean 'group'"),
    "an unknown column left out": (["gmm", "{folder}/few.csv", "--without", "d"], "has no column 'd' (it has 'a', 'b', 'two words')"),
    "no column left": (["gmm", "{folder}/few.csv", "--without", *NAMES], "few.csv has no column but 'a', 'b', 'two words'"),
    "no component": (["gmm", "{folder}/few.csv", "--components", "0"], "--components must be at least 1, got 0"),
    "more components than rows": (["gmm", "{folder}/few.csv", "--components", "2", "9"], "more than the 8 training rows of few.csv"),
    "no start": (["gmm", "{folder}/few.csv", "--starts", "0"], "--starts must be at least 1"),
    "a negative prior": (["gmm", "{folder}/few.csv", "--prior-count", "-1"], "--prior-count must be finite, at least 0"),
    "no step": (["fa", "{folder}/items.csv", "--max-steps", "0"], "--max-steps must be at least 1"),
    "a constant column": (["gmm", "{folder}/constant.csv"], "leave them out: --without 'my flag'"),
    "a constant column, standardised": (["ppca", "{folder}/constant.csv", "--standardize"], "--without 'my flag'"),
    "constant pixels": (["fa", "digits"], "--without x_0 x_32 x_39"),
    "dependent columns": (["gmm", "{folder}/dependent.csv", "--components", "1"], "--covariance diag"),
    "words": (["gmm", "{folder}/text.csv"], "line 3, column 'b' is no number: 'tall'"),
    "missing cells in a mixture": (["gmm", "{folder}/holes.csv"], "use vaejax fit ppca or fa"),
    "a column never seen": (["ppca", "{folder}/unseen.csv"], "column 'c' has no value in the training rows; leave it out: --without c"),
    "text that is no label": (["gmm", "{folder}/text.csv"], "name a column of text as --labels, leave it out (--without), or list"),
    "labels without a header": (["gmm", "{folder}/plain.csv", "--labels", "a"], "has no header, so that --labels a names no column"),
    "a split of too few rows": (["gmm", "{folder}/plain.csv"], "--split 0.7 0.1 0.2 of 3 rows leaves nothing for validation"),
    "no latent": (["ppca", "{folder}/items.csv", "--latents", "0"], "--latents must be at least 1"),
    "too many latents": (["ppca", "{folder}/items.csv", "--latents", "6"], "too many for 6 columns, take at most 5"),
    "more latents than rows": (["ppca", "{folder}/short.csv", "--latents", "4"], "too many for 5 training rows, take at most 3"),
    "one row": (["gmm", "{folder}/plain.csv", "--split", "0.3", "0.3", "0.4"], "1 training row says nothing of how the columns vary"),
    "two columns of factors": (["fa", "{folder}/few.csv", "--without", "a"], "has 2 columns to fit, and factor analysis needs"),
    "a seed of nothing": (["gmm", "{folder}/few.csv", "--split-seed", "-1"], "--split-seed must be at least 0, got -1"),
    "a column with a quote": (["gmm", "{folder}/quoted.csv"], """leave them out: --without 'o'"'"'clock'"""),
    "two rows": (["ppca", "{folder}/short.csv", "--split", "0.3", "0.3", "0.4"], "has 2 training rows, too few for one latent"),
    "too many factors": (["fa", "{folder}/items.csv", "--latents", "4"], "too many for 6 columns, take at most 3"),
    "one column": (["ppca", "{folder}/few.csv", "--without", "a", "b"], "has 1 column to fit, too few"),
    "a split of the digits": (["ppca", "digits", "--split-seed", "3"], "--split-seed is for files of your own"),
    "no directory of data": (["ppca", "mnist", "--data-dir", "{folder}/no"], "is no directory; name the one that holds mnist/"),
    "no directory to write to": (["ppca", "{folder}/few.csv", "--runs", "/proc/no"], "the run directory cannot be written"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "command", "told"),
    [
        ("there is no file split=1/x.csv", "fit", None),
        ("seed=0/run is no run", "evaluate", None),
        ("column 'b' is no number: 'seed=3'", "fit", None),
        ("write key=jax.random.key(seed)", "fit", None),
        ('no header, so that labels="o\'clock" names', "fit", 'no header, so that --labels "o\'clock" names'),
        ("say delimiter=' ' if blanks", "fit", "say --delimiter ' ' if blanks"),
        ("or prior_count=1", "fit", "or --prior-count 1"),
        ("numpy.savez(path, x=..., labels=...)", "fit", None),
        ("(directory=, else VAEJAX_DATA)", "fit", "(--data-dir, else VAEJAX_DATA)"),
        ("(directory=, else VAEJAX_DATA)", "data", "(--directory, else VAEJAX_DATA)"),
        ("split=(0.7, 0.1, 0.2) of 3 rows", "data", None),
    ],
)
def test_messages_name_flags_and_leave_paths_alone(text, command, told):
    assert in_flags(text, command) == (text if told is None else told)


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line(name, folder, monkeypatch, capsys, tmp_path):
    arguments, message = CASES[name]
    shown, err, code = fit(*arguments, folder=folder[0], monkeypatch=monkeypatch, capsys=capsys, tmp_path=tmp_path)
    assert code == 1, shown
    assert shown.startswith("vaejax: ")
    assert "\n" not in shown
    assert message in shown
    assert err == ""
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["gmm", "ppca", "fa", "Gaussian mixture"]),
        (["gmm"], ["DATA", "--components K", "--covariance", "equal_shape", "--prior-count", "--labels", "--without"]),
        (["fa"], ["--latents Q", "--standardize", "--no-figures", "missing cell"]),
    ],
)
def test_help_reads(command, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vaejax", "fit", *command, "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    text = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    for word in words:
        assert word in text


def test_rows_of_a_dataset_stand_where_it_says(tmp_path):
    x = np.arange(40.0).reshape(20, 2) / 7
    np.save(tmp_path / "x.npy", x)
    own = data.load(tmp_path / "x.npy")
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(own, part).x, x[own.rows[part]].astype(np.float32))
    assert data.load("digits").rows["validation"][0] == 70
