"""A training run from settings to summary, in a directory of its own."""

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import jax
import optax

import vaejax
from vaejax import checks, data, random
from vaejax.data.registry import needs_files
from vaejax.report import build, pictures
from vaejax.report import config as settings
from vaejax.report.config import RunConfig
from vaejax.report.measure import as_dict, in_words, measure
from vaejax.report.narrow import shift_remark
from vaejax.report.run import Run, write_figures, write_summary
from vaejax.train import FitResult, fit
from vaejax.train.storage import write_text
from vaejax.types import Batch, Estimator, Key, Model, Params


class Plan(NamedTuple):
    """A run before it begins: settings, data and parts, all checked."""

    config: RunConfig
    dataset: data.Dataset
    facts: build.Facts
    model: Model
    estimator: Estimator
    optimizer: optax.GradientTransformation
    steps_per_epoch: int


def plan(config: RunConfig) -> Plan:
    """Loads the data and builds everything that a run needs, before anything is written or trained.

    Raises:
        FileNotFoundError, ValueError, TypeError: missing data, settings out of range or that do not go together.
    """
    training = config.training
    for value, name in (
        (config.evaluation.samples, "samples"),
        (training.epochs, "epochs"),
        (training.batch_size, "batch_size"),
        (training.validation_samples, "validation_samples"),
        (training.pictures_every, "pictures_every"),
        (training.patience, "patience"),
    ):
        if value is not None:
            checks.positive_int(value, name)
    checks.seed(training.seed)
    checks.real(training.save_every, "save_every", minimum=0.0)
    dataset, facts = build.open_data(config)
    num_examples = len(dataset.train.x)
    if training.batch_size > num_examples:
        raise ValueError(
            f"batch_size={training.batch_size} is larger than the data, {num_examples} examples; make batches smaller"
        )
    steps = num_examples // training.batch_size
    model = build.build_model(config, facts)
    if training.patience is not None and not len(dataset.validation.x):
        raise ValueError(
            "--patience waits for a better validation ELBO, and the validation part is empty; give it a share of --split, or leave "
            "--patience out"
        )
    if model.check is not None:
        for split in build.PARTS:
            if len(getattr(dataset, split).x):
                model.check(prepared(config, facts, dataset, split))
    estimator = build.build_estimator(config, model, steps)
    return Plan(config, dataset, facts, model, estimator, build.build_optimizer(config, steps), steps)


def outline(planned: Plan) -> str:
    """What a run will do, in a few lines for a terminal."""
    config, facts = planned.config, planned.facts
    shapes = jax.eval_shape(planned.model.init, jax.random.key(0), None)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    steps = config.training.epochs * planned.steps_per_epoch
    summary = data.describe(planned.dataset)
    lines = [
        str(summary),
        f"{facts.likelihood} likelihood, {config.model.latent_size} latent dimensions, {count:,} parameters; {config.training.epochs} "
        f"epochs of {planned.steps_per_epoch} steps, {steps:,} in all",
    ]
    lines += filter(None, [shift_remark(facts.columns, facts.offset)])
    if facts.likelihood == "normal" and summary.constant and not config.model.sigma.replace(".", "").isdigit():
        lines.append(
            f"warning: {summary.constant} entries never vary, and a learned σ can make their density as large as it likes; the "
            "log-likelihood will mean little"
        )
    return "\n".join(lines)


def keys(config: RunConfig) -> dict[str, Key]:
    """The random keys of a run, by use."""
    names = ("fit", "test", "evaluate", "plot")
    return dict(zip(names, jax.random.split(random.seed_key(config.training.seed), 4)))


def prepared(config: RunConfig, facts: build.Facts, dataset: data.Dataset, split: str) -> Batch:
    """One part of the data as the model sees it; binarised with a fixed key of the run's own where it models grey images as binary.

    Raises:
        ValueError: a part without rows.
    """
    batch = getattr(dataset, checks.one_of(split, "split", build.PARTS))
    if not len(batch.x):
        filled = [part for part in build.PARTS if len(getattr(dataset, part).x)]
        raise ValueError(
            f"the {split} part of {dataset.name} is empty (--split {' '.join(f'{share:g}' for share in config.data.split)}); use "
            f"--split {' or '.join(filled)}"
        )
    preprocess = build.build_preprocess(facts)
    return batch if preprocess is None else preprocess(keys(config)["test"], batch)


def reported_part(dataset: data.Dataset) -> str:
    """The part of the data that results and figures are about: test; without test rows validation, without these train."""
    return next(part for part in ("test", "validation", "train") if len(getattr(dataset, part).x))


def train(planned: Plan, directory: Path, *, resume: bool = False, progress: bool | None = None) -> FitResult:
    """Trains in a run directory, from the beginning or from its last checkpoint.

    Raises:
        As `vaejax.train.fit`; where nothing was trained, what this wrote is removed again.
    """
    config, training = planned.config, planned.config.training
    if not resume:
        write_text(directory / "config.json", settings.to_json(config))
        build.write_facts(directory / "data.json", planned.facts)
    try:
        return fit(
            keys(config)["fit"],
            planned.model,
            planned.dataset.train,
            estimator=planned.estimator,
            optimizer=planned.optimizer,
            num_epochs=training.epochs,
            batch_size=training.batch_size,
            validation=planned.dataset.validation if len(planned.dataset.validation.x) else None,
            validation_samples=training.validation_samples,
            preprocess=build.build_preprocess(planned.facts),
            nonfinite=training.nonfinite,
            patience=training.patience,
            callbacks=pictures.callbacks(planned.model, planned.facts, planned.dataset, config, directory),
            run_directory=directory,
            resume=resume,
            save_every=training.save_every,
            config=dataclasses.asdict(config),
            progress=progress,
        )
    except BaseException:
        if not resume and not (directory / "fit.json").exists():
            for name in ("config.json", "data.json", ".lock"):
                (directory / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something of the user's is in it
                directory.rmdir()
        raise


def finish(planned: Plan, directory: Path, result: FitResult, *, progress: bool | None = None) -> str:
    """Evaluates a trained model on its test data (without any, as `reported_part` says) and writes the summary.

    Returns:
        The results in a few lines for a terminal.
    """
    config, facts = planned.config, planned.facts
    split = reported_part(planned.dataset)
    results = measure(
        planned.model, chosen(config, result), keys(config)["evaluate"], prepared(config, facts, planned.dataset, split),
        samples=config.evaluation.samples, progress=progress,
    )  # fmt: skip
    summary = {
        "name": config.name,
        "epochs": int(result.history["epoch"][-1]),
        "stopped": result.stopped,
        "best_epoch": result.best_epoch,
        "parameters": config.evaluation.use,
        split: as_dict(results),
        "training_seconds": float(result.history["seconds"].sum()),
        "versions": {"vaejax": vaejax.__version__, "jax": jax.__version__},
    }
    write_summary(directory / "summary.json", summary)
    best = config.evaluation.use == "best" and result.best_params is not None
    epoch = f"epoch {result.best_epoch}, the best of" if best else "the last of"
    return f"{in_words(results, split, levels=units(facts))}\nparameters of {epoch} {summary['epochs']} epochs ({_ended(result)})"


def draw(planned: Plan, directory: Path, result: FitResult) -> str:
    """Draws a trained model's figures.

    Returns:
        Where everything is, in a few words.
    """
    config, facts = planned.config, planned.facts
    split = reported_part(planned.dataset)
    test = prepared(config, facts, planned.dataset, split)
    labels = None if planned.dataset.labels is None else planned.dataset.labels[split]
    made = pictures.drawings(
        planned.model, chosen(config, result), facts, keys(config)["plot"], test,
        labels=labels, history=result.history, cmap=pictures.colours(config.name),
        train=prepared(config, facts, planned.dataset, "train"),
    )  # fmt: skip
    written = write_figures(directory / "figures", pictures.draw_all(made))
    return (
        f"settings, history.csv, checkpoints, summary.json and figures ({', '.join(path.stem for path in written)})\n"
        f"are in {directory}"
    )


def chosen(config: RunConfig, result: FitResult) -> Params:
    """The parameters that a run reports: the best, or the last where the settings say so or nothing was validated."""
    last = config.evaluation.use == "last" or result.best_params is None
    return result.state.params if last else result.best_params


def units(facts: build.Facts) -> int | None:
    """What grey levels were divided by, where they were modelled as real numbers."""
    return facts.levels if facts.likelihood == "normal" else None


def _ended(result: FitResult) -> str:
    waited = len(result.history["epoch"]) - result.best_epoch
    return f"stopped: none better in {waited}" if result.stopped == "patience" else "all done"


def with_name(config: RunConfig, name: str) -> RunConfig:
    """The settings for other data; paths become absolute, so that the run can be opened from anywhere."""
    path = data.own_path(name)
    if path is not None:
        return dataclasses.replace(config, name=str(path.absolute()))
    folder = Path(config.data.data_dir) if config.data.data_dir else data.default_directory()
    if config.data.data_dir and not folder.is_dir():
        raise NotADirectoryError(
            f"--data-dir {folder} is no directory; name the one that holds {name}/, or leave it out"
        )
    where = str(folder.absolute()) if needs_files(name) else None
    return dataclasses.replace(config, name=name, data=dataclasses.replace(config.data, data_dir=where))


def check_unchanged(facts: build.Facts, run: Run) -> None:
    """Raises unless the data are those that a run was made with."""
    if facts != run.facts:
        raise ValueError(
            f"the data of {run.directory} ({run.config.name}) have changed since it was made; bring back the old ones, or train anew"
        )
