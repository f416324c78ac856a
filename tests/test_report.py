"""The report of a run: one page that needs no other file, and the same numbers as strict JSON."""

import dataclasses
import json
from html.parser import HTMLParser

import numpy as np
import pytest

from vaejax import evaluate, plots
from vaejax.plots import style
from vaejax.report import config, full, job, page
from vaejax.report.page import Entry, Section, as_dict, as_html, of_mean

VOID = {"meta", "link", "img", "br"}


class Balanced(HTMLParser):
    """Every tag that opens closes."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text):
    parser = Balanced()
    parser.feed(text)
    assert not parser.open
    return parser


def sections():
    mean = evaluate.MeanEstimate(-98.5634, 0.981, 0.0312, 357)
    figure = style.figure(3, 2)
    figure.subplots().plot([0, 1])
    entries = (
        of_mean("ELBO", mean, "a bound.", seconds=3.0),
        Entry("k̂ < 0.7 & more", 3, None, "how <many>"),
        Entry("undefined", float("nan"), None, "of one"),
        Entry("verdict", "healthy", None, "in words"),
    )
    columns = {"elbo": np.array([-1.0, np.nan])}
    return [Section("Density & all", "lead", entries, ("a note",), {"one": (figure, "caption")}, columns)]


def test_numbers_have_two_digits_of_their_error():
    text = as_html("run", {"data": "d<i>gits"}, sections())
    assert "−98.56 <small>± 0.98</small> nats<br><small>Monte Carlo ± 0.031</small>" in text
    assert "± between 357 examples" in text
    assert "not defined" in text
    assert "3.0 s" in text


def test_the_page_is_one_balanced_file_and_what_it_quotes_is_escaped():
    text = as_html("a <run>", {"data": "d<i>gits"}, sections())
    found = parsed(text)
    assert all(link.startswith(("data:", "#")) for link in found.links)
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert "how &lt;many&gt;" in text
    assert "d&lt;i&gt;gits" in text
    assert "<script" not in text


def test_json_holds_the_same_numbers():
    found = as_dict({"data": "digits"}, sections())["sections"][0]
    assert found["entries"][0]["value"] == -98.5634
    assert found["entries"][0]["error"] == 0.981
    assert found["entries"][1] == {"name": "k̂ < 0.7 & more", "value": 3, "definition": "how <many>"}
    assert found["columns"]["elbo"][0] == -1.0


def test_decimals():
    assert [page.decimals(v, e) for v, e in ((1.0, 0.0), (123456.7, None), (1e-9, None), (0.5, 1e-12))] == [3, 0, 6, 6]


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """A short run on the digits."""
    directory = tmp_path_factory.mktemp("run")
    preset = config.preset("digits")
    changed = {
        "model": {"latent_size": 2, "hidden_sizes": (16,)},
        "training": {"epochs": 2},
        "evaluation": {"samples": 10},
    }
    parts = {name: dataclasses.replace(getattr(preset, name), **values) for name, values in changed.items()}
    planned = job.plan(job.with_name(dataclasses.replace(preset, **parts), "digits"))
    job.train(planned, directory, progress=False)
    return directory


@pytest.mark.slow
def test_a_run_is_reported_whole(run_directory, capsys, monkeypatch):
    monkeypatch.setattr(full, "_MANY", 100)
    monkeypatch.setattr(full, "_SIMULATIONS", 100)
    monkeypatch.setattr(full, "_SAMPLES", 100)
    options = {"samples": 20, "examples": 5, "temperatures": 10, "progress": False}
    said = full.report_run(run_directory, **options)
    assert "AIS_10" in said
    text = (run_directory / "report.html").read_text()
    found = parsed(text)
    assert all(link.startswith(("data:", "#")) for link in found.links)
    for title in ("Density", "Latents", "Calibration of the encoder", "Samples", "Training and latent space"):
        assert f"<h2>{title}</h2>" in text
    report = json.loads((run_directory / "report.json").read_text(), parse_constant=pytest.fail)
    entries = {entry["name"]: entry for part in report["sections"] for entry in part["entries"]}
    bounds = ("ELBO", "IWAE_50", "IS_100", "AIS_10")
    for name in (
        *(f"{bound}, 5 examples" for bound in bounds),
        "gap, simulated",
        "approximation gap",
        "mutual information",
    ):
        assert entries[name]["error"] >= 0, name
        assert entries[name]["definition"], name
    assert len(report["sections"][0]["columns"]["ais"]) == 5
    # What took long is kept, and not done again.
    (kept,) = (run_directory / "evidence").glob("*/ais/block-*.npz")
    with np.load(kept) as file:
        content = dict(file)
    np.savez(kept, **{**content, "log_weights": content["log_weights"] + 1000.0})
    full.report_run(run_directory, **options)
    report = json.loads((run_directory / "report.json").read_text())
    changed = {entry["name"]: entry for part in report["sections"] for entry in part["entries"]}["AIS_10, 5 examples"]
    assert changed["value"] == pytest.approx(entries["AIS_10, 5 examples"]["value"] + 1000, abs=1e-2)


def test_the_figure_of_the_evidence_shows_every_bound(key):
    lines = tuple(
        evaluate.Line(name, evaluate.MeanEstimate(value, 0.1, 0.0, 3), kind, "", 0.0)
        for name, value, kind in (
            ("ELBO", -3.0, "lower bound"),
            ("IS_100", -2.0, "lower bound"),
            ("AIS_10", -1.0, "lower bound"),
            ("gap, simulated", 0.1, "diagnostic"),
        )
    )
    base = np.array([-1.0, -2.0, -3.0])
    columns = {"elbo": base - 1, "importance": base, "ais": base + 1, "pareto_k": np.array([0.2, 0.9, np.inf])}
    figure = plots.evidence(evaluate.EvidenceReport(lines, (), columns, "AIS_10", 100))
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["ELBO", "IS_100", "AIS_10"]
    assert "above 0.50 for 2 of 3" in right.get_title(loc="left")
    columns["pareto_k"] = np.full(3, np.nan)
    assert len(plots.evidence(evaluate.EvidenceReport(lines, (), columns, "AIS_10", 100)).axes) == 1
