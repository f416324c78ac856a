"""Each notebook is its script, and was run from top to bottom."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def cells_of(notebook):
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["source"]]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_notebook_and_script_are_paired(script):
    jupytext = pytest.importorskip("jupytext")
    wanted = [(cell.cell_type, cell.source) for cell in jupytext.read(script).cells]
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in cells_of(script.with_suffix(".ipynb"))]
    assert found == wanted, "run: jupytext --to ipynb --execute " + script.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_notebook_holds_its_results(script):
    code = [cell for cell in cells_of(script.with_suffix(".ipynb")) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 6
    text = script.with_suffix(".ipynb").read_text()
    assert len(text) < 2_000_000
    assert "/work/" not in text
    assert "/home/" not in text
