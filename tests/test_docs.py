"""Every Python block of the README and the docs runs as it stands; tables agree with the code."""

import re
import warnings
from pathlib import Path

import pytest

import vaejax

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


# Pages that take more than about ten seconds.
SLOW_PAGES = ("calibration", "conjugate", "disentanglement", "evaluation", "models", "training")


def pages():
    for page in PAGES:
        if blocks(page):
            marks = pytest.mark.slow if page.stem in SLOW_PAGES else ()
            yield pytest.param(page, marks=marks, id=page.name)


@pytest.mark.parametrize("page", list(pages()))
def test_python_blocks_run(page, capsys):
    """In order, in one namespace a page."""
    namespace = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vaejax.evaluate.UntrustworthyEstimate)
        for block in blocks(page):
            exec(compile(block, page.name, "exec"), namespace)
    if page.name == "README.md":
        assert re.search(r"-\d+\.\d+ ± \d\.\d+ \(between 357 examples; Monte Carlo ± 0\.\d+\)", capsys.readouterr().out)


def test_from_arrays_to_log_likelihood_in_fifteen_lines():
    code = [line for line in blocks(ROOT / "README.md")[0].splitlines() if line.strip()]
    assert len(code) <= 15


def test_the_estimator_table_is_the_catalogue():
    text = (ROOT / "docs" / "estimators.md").read_text()
    for row in vaejax.estimators.catalogue():
        many = "yes" if row.needs_many_samples else "no"
        assert f"| `{row.name}` | {row.latents} | {row.unbiased} | {many} | {row.evaluations} | {row.source} |" in text


def test_every_objective_and_dependency_is_documented():
    import tomllib

    objectives = (ROOT / "docs" / "objectives.md").read_text()
    named = [n for n in vaejax.objectives.__all__ if hasattr(getattr(vaejax.objectives, n), "objective_info")]
    assert {"elbo", "iwae", "tvo"} <= set(named)
    assert all(f"| `{name}" in objectives for name in named)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    readme = (ROOT / "README.md").read_text().split("## Dependencies")[1]
    listed = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    for requirement in listed:
        name, bound = re.fullmatch(r"([a-z0-9-]+)(?:\[.*\])?(.*)", requirement).groups()
        if name != "vaejax":
            assert name in readme, name
            assert bound.startswith(">="), requirement


def test_no_placeholders_are_left():
    for page in PAGES:
        assert not re.findall(r"^[A-Z]+_[A-Z]+$", page.read_text(), re.MULTILINE), page


def test_relative_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
