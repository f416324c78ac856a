"""Runs that survive: exact resumption, damaged checkpoints, early stopping, callbacks, disks that are full."""

import csv
import functools
import json
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.helpers import tree_allclose
from vaejax import train
from vaejax.train import runs, storage

X = np.random.default_rng(0).integers(0, 17, (40, 6)).astype(np.uint8)
MODEL = vaejax.models.vae(x_shape=6, latent_size=2, hidden_sizes=(8,), dropout_rate=0.1)
ESTIMATOR = vaejax.estimators.pathwise(MODEL, functools.partial(vaejax.objectives.elbo, beta=lambda step: step / 100))
OPTIMIZER = optax.adam(optax.cosine_decay_schedule(3e-3, 80))


def fit(directory=None, *, key=0, x=X, num_epochs=8, **options):
    return train.fit(
        jax.random.key(key),
        MODEL,
        x,
        **{
            "estimator": ESTIMATOR,
            "optimizer": OPTIMIZER,
            "num_epochs": num_epochs,
            "batch_size": 4,
            "validation": X[:10],
            "preprocess": vaejax.data.dynamic_binarization(levels=16),
            "run_directory": directory,
            **options,
        },
    )


def at(epoch, answer=True):
    return lambda step, state, metrics: answer if metrics["epoch"] == epoch else None


def assert_same_run(a, b):
    """Bit for bit, whatever the clock said."""
    tree_allclose(a.state, b.state, rtol=0, atol=0)
    tree_allclose(a.best_params, b.best_params, rtol=0, atol=0)
    assert a.best_epoch == b.best_epoch
    assert list(a.history) == list(b.history)
    for name in set(a.history) - {"seconds"}:
        np.testing.assert_array_equal(a.history[name], b.history[name])


@pytest.fixture(scope="module")
def whole():
    return fit()


@pytest.mark.parametrize("nonfinite", ["stop", "skip"])
def test_a_run_stopped_anywhere_and_resumed_is_the_same_run(tmp_path, nonfinite, whole):
    uninterrupted = whole if nonfinite == "stop" else fit(nonfinite="skip")
    for epoch in (1, 4, 5):
        stopped = fit(tmp_path, callbacks=[at(epoch)], resume=True, save_every=1e9, nonfinite=nonfinite)
        assert stopped.stopped == "callback"
        assert len(stopped.history["epoch"]) == epoch
    resumed = fit(tmp_path, resume=True, nonfinite=nonfinite)
    assert resumed.stopped == "num_epochs"
    assert_same_run(resumed, uninterrupted)
    again = fit(tmp_path, resume=True, nonfinite=nonfinite)
    assert_same_run(again, uninterrupted)
    assert again.history["seconds"][-1] == resumed.history["seconds"][-1]


def test_a_run_keeps_what_it_should(tmp_path, whole):
    fit(tmp_path, save_every=0)
    assert {p.name for p in tmp_path.iterdir()} == {"fit.json", "history.jsonl", "history.csv", "checkpoints", ".lock"}
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert [n for n in names if n.startswith("epoch")] == ["epoch-000007", "epoch-000008"]
    assert f"best-{whole.best_epoch:06d}" in names
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    table = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    for name in set(whole.history) - {"seconds"}:
        np.testing.assert_array_equal([r[name] for r in rows], whole.history[name])
        np.testing.assert_array_equal([float(r[name]) for r in table], whole.history[name])
    like = MODEL.init(jax.random.key(9))
    tree_allclose(train.load_params(runs.find_checkpoint(tmp_path, "best"), like), whole.best_params, rtol=0, atol=0)
    tree_allclose(train.load_params(runs.find_checkpoint(tmp_path, "last"), like), whole.state.params, rtol=0, atol=0)
    assert not list(tmp_path.rglob("*.pkl"))


def test_the_best_parameters_are_those_of_the_best_epoch(whole):
    assert whole.best_epoch == int(np.argmax(whole.history["validation_elbo"])) + 1
    seen = {}
    fit(callbacks=[lambda step, state, metrics: seen.__setitem__(metrics["epoch"], state.params)])
    # The states are the callback's to keep: donation has not eaten them.
    assert len(seen) == 8
    tree_allclose(seen[whole.best_epoch], whole.best_params, rtol=0, atol=0)


def test_early_stopping(whole):
    values = fit(num_epochs=300, optimizer=optax.adam(1e-2), patience=5)
    elbo = values.history["validation_elbo"]
    assert values.stopped == "patience"
    assert len(elbo) == values.best_epoch + 5 < 300
    assert (elbo[values.best_epoch :] <= elbo[values.best_epoch - 1]).all()


def test_small_improvements_do_not_count_for_patience_and_do_for_the_best():
    values = fit(num_epochs=300, patience=5, min_improvement=100.0)
    elbo = values.history["validation_elbo"]
    assert (values.stopped, len(elbo)) == ("patience", 6)
    assert values.best_epoch == int(np.argmax(elbo)) + 1 > 1


def test_patience_counts_on_after_a_resumption(tmp_path):
    options = {"num_epochs": 300, "optimizer": optax.adam(1e-2), "patience": 6, "min_improvement": 0.02}
    uninterrupted = fit(**options)
    last = len(uninterrupted.history["epoch"])
    fit(tmp_path, callbacks=[at(last - 3)], **options)
    resumed = fit(tmp_path, resume=True, **options)
    assert resumed.stopped == "patience"
    assert_same_run(resumed, uninterrupted)


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path, whole):
    fit(tmp_path, save_every=0, callbacks=[at(6)])
    damage(tmp_path / "checkpoints" / "epoch-000006")
    with pytest.warns(UserWarning, match=r"epoch-000006.* is damaged.*now damaged-epoch-000006; going back to epoch 5"):
        resumed = fit(tmp_path, resume=True)
    assert_same_run(resumed, whole)
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 9


def test_damaged_best_parameters_give_way_to_those_before_them(tmp_path, whole):
    stopped = fit(tmp_path, callbacks=[at(6)], save_every=0)
    best = sorted((tmp_path / "checkpoints").glob("best-*"))
    assert len(best) == 2
    damage(best[1])
    with pytest.warns(UserWarning, match="going back to the best parameters before it"):
        resumed = fit(tmp_path, resume=True, num_epochs=6)
    assert resumed.best_epoch == int(best[0].name[-6:]) < stopped.best_epoch
    tree_allclose(resumed.state, stopped.state, rtol=0, atol=0)
    damage(best[0])
    with pytest.warns(UserWarning, match="going back"):
        resumed = fit(tmp_path, resume=True, patience=5)
    assert resumed.stopped == "num_epochs"
    tree_allclose(resumed.state.params, whole.state.params, rtol=0, atol=0)
    assert resumed.best_epoch == 7 + int(np.argmax(whole.history["validation_elbo"][6:]))


def test_a_run_without_a_whole_checkpoint_is_refused(tmp_path):
    fit(tmp_path, save_every=0, num_epochs=3)
    for path in (tmp_path / "checkpoints").glob("epoch-*"):
        damage(path)
    for _ in range(2):  # nothing is renamed, so that the second call does not take it for a fresh directory
        with pytest.raises(
            train.CheckpointError, match=r"no checkpoint of .* can be read .*epoch-000003.*epoch-000002"
        ):
            fit(tmp_path, resume=True)


def test_an_error_of_the_moment_does_not_condemn_a_whole_checkpoint(tmp_path, monkeypatch, whole):
    import orbax.checkpoint as ocp

    fit(tmp_path, callbacks=[at(4)])

    def fail(*arguments, **options):
        raise MemoryError("just now")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.StandardCheckpointer, "restore", fail)
        with pytest.raises(MemoryError):
            fit(tmp_path, resume=True)
    assert_same_run(fit(tmp_path, resume=True), whole)


def test_checkpoints_without_their_record_are_refused(tmp_path):
    fit(tmp_path, num_epochs=2)
    (tmp_path / "fit.json").unlink()
    for resume in (False, True):
        with pytest.raises(train.CheckpointError, match=r"holds checkpoints and no fit\.json"):
            fit(tmp_path, resume=resume)


def test_a_run_from_a_state_of_ones_own_resumes_before_its_first_checkpoint(tmp_path, monkeypatch):
    base = fit(num_epochs=3).state
    uninterrupted = fit(state=base, num_epochs=4)

    def first_only(directory, progress, save=runs.save):
        if not progress.epoch:
            save(directory, progress)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "save", first_only)
        fit(tmp_path, state=base, num_epochs=4, callbacks=[at(2)])
    assert_same_run(fit(tmp_path, resume=True, num_epochs=4), uninterrupted)


def damage(path):
    for file in path.rglob("*"):
        if file.is_file() and file.stat().st_size > 200 and file.name != "seal.json":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_leftovers_of_a_killed_writer_do_no_harm(tmp_path, whole):
    fit(tmp_path, callbacks=[at(4)])
    leftover = tmp_path / "checkpoints" / ".epoch-000005.123.part"
    leftover.mkdir()
    (leftover / "half").write_text("x")
    (tmp_path / "history.jsonl").write_text('{"epoch": 1, "obj')
    assert_same_run(fit(tmp_path, resume=True), whole)
    assert not leftover.exists()
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 8


def test_foreign_runs_are_refused(tmp_path):
    with pytest.raises(TypeError, match="config must be what JSON can hold"):
        fit(tmp_path, config={"model": MODEL})
    fit(tmp_path, num_epochs=2)
    cases = {
        "another data": {"x": X[::-1]},
        "another key": {"key": 1},
        "another batch_size": {"batch_size": 5},
        "another validation;": {"validation": X[:9]},
        "another config": {"config": {"hidden_sizes": (9,)}},
        "another nonfinite": {"nonfinite": "skip"},
        r"training\[0\].* is not part of it|is missing": {"optimizer": optax.sgd(1e-3)},
    }
    for message, change in cases.items():
        with pytest.raises(ValueError, match=message):
            fit(tmp_path, resume=True, **change)
    fit(tmp_path / "other", num_epochs=1, config={"hidden_sizes": (8,)})
    fit(tmp_path / "other", num_epochs=2, config={"hidden_sizes": (8,)}, resume=True)
    assert json.loads((tmp_path / "other" / "fit.json").read_text())["run"]["config"] == {"hidden_sizes": [8]}
    with pytest.raises(FileExistsError, match=r"holds a run already.*resume=True"):
        fit(tmp_path)
    (tmp_path / "fit.json").write_text("{")
    with pytest.raises(train.CheckpointError, match=r"fit\.json is damaged"):
        fit(tmp_path, resume=True)


def test_a_changed_machine_is_told(tmp_path):
    fit(tmp_path, num_epochs=1)
    known = json.loads((tmp_path / "fit.json").read_text())
    known["machine"]["cores"] = 1000
    (tmp_path / "fit.json").write_text(json.dumps(known))
    with pytest.warns(UserWarning, match="changed machine .cores 1000 → .*last bits"):
        fit(tmp_path, num_epochs=2, resume=True)


def test_two_processes_do_not_train_in_one_directory(tmp_path):
    fit(tmp_path, num_epochs=1)
    with storage.locked(tmp_path), pytest.raises(BlockingIOError, match="another process is training"):
        fit(tmp_path, num_epochs=2, resume=True)


def test_a_full_disk_is_told_before_training(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"has 0\.0 MB left, and the checkpoints of this run need"):
        fit(tmp_path)


def test_an_unwritable_directory_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "run", "/proc/nowhere"):
        with pytest.raises(OSError, match="the run directory cannot be written"):
            fit(directory)


def test_a_disk_that_fills_up_does_not_end_training(tmp_path, monkeypatch, whole):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "write_checkpoint", full)
    with pytest.warns(UserWarning, match="no checkpoint of epoch 8 could be written .*No space left"):
        result = fit(tmp_path)
    assert_same_run(result, whole)


def test_what_was_trained_survives_a_callback_that_fails(tmp_path, whole):
    def fail(step, state, metrics):
        if metrics["epoch"] == 5:
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fit(tmp_path, callbacks=[fail], save_every=1e9)
    assert [p.name for p in (tmp_path / "checkpoints").glob("epoch-*")] == ["epoch-000005"]
    assert_same_run(fit(tmp_path, resume=True), whole)


def test_what_was_trained_survives_a_nan(tmp_path):
    explode = optax.scale_by_schedule(lambda step: jnp.where(step < 25, 1e-3, jnp.inf))
    options = {"optimizer": optax.chain(optax.scale_by_adam(), explode), "save_every": 1e9}
    with pytest.raises(train.NonFiniteError, match="epoch 3"):
        fit(tmp_path, **options)
    assert [p.name for p in (tmp_path / "checkpoints").glob("epoch-*")] == ["epoch-000002"]


@pytest.mark.wants_nan
def test_nan_in_a_history_comes_back(tmp_path):
    optimizer = optax.apply_if_finite(OPTIMIZER, 10**6)
    broken = vaejax.estimators.pathwise(MODEL, lambda t, step: t.log_weights.mean(0) * jnp.where(step < 20, 1, jnp.nan))
    options = {"estimator": broken, "optimizer": optimizer, "nonfinite": "skip"}
    fit(tmp_path, callbacks=[at(5)], **options)
    resumed = fit(tmp_path, resume=True, **options)
    assert np.isnan(resumed.history["objective"]).tolist() == [False] * 2 + [True] * 6
    for line in (tmp_path / "history.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.wants_nan
def test_any_tree_is_kept_exactly(tmp_path):
    tree = {
        "key": jax.random.key(3, impl="rbg"),
        "empty": jnp.zeros((0, 3)),
        "half": jnp.ones(2, jnp.bfloat16),
        "whole": jnp.arange(3),
        "nothing": None,
        "odd": jnp.array([jnp.nan, jnp.inf, -0.0]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = train.load_params(train.save_params(tmp_path / "tree", tree), tree)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert (jax.random.key_data(back["key"]) == jax.random.key_data(tree["key"])).all()
    for name in set(tree) - {"key", "nothing"}:
        assert back[name].dtype == tree[name].dtype
        np.testing.assert_array_equal(np.asarray(back[name]), np.asarray(tree[name]))
    with pytest.raises(ValueError, match=r"key'.<threefry2x32> is missing"):
        train.load_params(tmp_path / "tree", {**tree, "key": jax.random.key(0)})
