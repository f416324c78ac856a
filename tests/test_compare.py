"""The study that times two checkouts in turns."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.studies import compare

ROOT = Path(__file__).parents[1]


def checkout(rows, turns):
    """A checkout without a process: ``rows[i]`` are complete after turn i."""
    replies = iter(range(turns))
    fake = compare.Checkout(ROOT, None, [])

    def give_turn():
        turn = next(replies)
        fake.rows.extend(rows.get(turn, []))
        return turn < turns - 1

    return fake, give_turn


def rows_of(monkeypatch, before, after, turns=(3, 3)):
    fakes = [checkout(rows, count) for rows, count in zip((before, after), turns)]
    calls = []

    def give_turn(one):
        index = [fake is one for fake, _ in fakes].index(True)
        calls.append(index)
        return fakes[index][1]()

    monkeypatch.setattr(compare, "give_turn", give_turn)
    return list(compare.compared(fakes[0][0], fakes[1][0], 1.05)), calls


def test_checkouts_alternate_and_rows_are_paired(monkeypatch):
    old, new = compare.Series("epoch", "s", [2.0] * 8), compare.Series("epoch", "s", [1.0] * 8)
    rows, calls = rows_of(monkeypatch, {1: [old]}, {1: [new]})
    assert calls == [0, 1] * 3
    assert harness.ratios(rows[0])["before"].median == pytest.approx(0.5)
    assert harness.verdicts(rows[0]) == {"before": "met"}
    assert "0.500 to 0.500" in rows[0].note


def test_different_work_is_refused(monkeypatch):
    old, new = compare.Series("epoch", "s", [2.0]), compare.Series("step", "s", [1.0])
    with pytest.raises(RuntimeError, match="same work, got 'epoch' and 'step'"):
        rows_of(monkeypatch, {1: [old]}, {1: [new]})
    with pytest.raises(RuntimeError, match="same rows"):
        rows_of(monkeypatch, {}, {1: [new]})
    with pytest.raises(RuntimeError, match="same rows"):
        rows_of(monkeypatch, {}, {}, turns=(2, 3))


def test_a_folder_that_is_not_a_checkout_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path), "epoch"])
    with pytest.raises(SystemExit):
        compare.main()
    assert "must be a checkout with benchmarks/suites" in capsys.readouterr().err


@pytest.mark.slow
def test_two_checkouts_are_timed_in_turns(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["compare", str(ROOT), "train_step", "--quick", "--json", str(out)])
    compare.main()
    assert "95 % interval of the median ratio" in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert content["complete"]
    assert content["command"] == f"python -m benchmarks compare {ROOT} train_step --quick"
    assert all(set(row["ratios"]) == {"before"} for row in content["suites"]["compare"])
