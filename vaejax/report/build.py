"""From settings to the parts of a run: data, model, estimator, optimiser."""

import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaejax import checks, data, estimators, models, nets, objectives
from vaejax.data.registry import needs_files
from vaejax.dists import likelihoods
from vaejax.report import config as settings
from vaejax.report.config import RunConfig
from vaejax.report.narrow import narrowed
from vaejax.report.options import file_options
from vaejax.train.storage import CheckpointError, fingerprint, write_text
from vaejax.types import Batch, Estimator, Key, Model

PARTS = ("train", "validation", "test")
# Whole numbers up to here are modelled as counts out of their largest; beyond, as real numbers.
_LARGEST_COUNT = 20


class Facts(NamedTuple):
    """What a model must know of its data, so that it can be rebuilt without them; kept in a run's ``data.json``.

    Attributes:
        x_shape: event shape.
        likelihood: the family, ``auto`` resolved.
        size: total count of a binomial, classes of a categorical likelihood.
        levels: grey level that stands for 1, or None.
        context_size: classes of the labels given to the networks, 0 for none.
        encode_mask: whether the encoder sees which entries are missing.
        mean: of each entry, where the model standardises them, else None.
        scale: their standard deviations, likewise.
        columns: names of a table's columns.
        label_names: names of the classes.
        digest: checksum of all the data.
        offset: what is subtracted from each entry, in float64, before the model reads it as float32; None if nothing is.
    """

    x_shape: tuple[int, ...]
    likelihood: str
    size: int
    levels: int | None
    context_size: int
    encode_mask: bool
    mean: Any
    scale: Any
    columns: tuple[str, ...] | None
    label_names: tuple[str, ...] | None
    digest: str
    offset: Any = None


def open_data(config: RunConfig) -> tuple[data.Dataset, Facts]:
    """The data of a run, with labels as context where the settings say so, and what the model must know of them.

    Raises:
        FileNotFoundError, ValueError: missing or damaged files; settings that do not suit the data.
    """
    options, own = config.data, config.name not in settings.PRESETS
    chosen = file_options(options)
    if own:
        chosen |= {"split": options.split, "seed": options.split_seed, "dtype": "float64"}
    elif changed := [
        f for f in ("split", "split_seed", "levels") if getattr(options, f) != getattr(settings.Data(), f)
    ]:
        raise ValueError(f"{changed[0]} is for files of your own, and {config.name} is split as it is; leave it out")
    where = options.data_dir
    if where is not None and not Path(where).is_dir():
        warnings.warn(f"{where}, where the data were, is gone; looking in {data.default_directory()}", stacklevel=3)
        where = None
    # Own files say where they are.
    dataset = data.load(config.name, None if own or not needs_files(config.name) else where, **chosen)
    if options.levels is not None:
        dataset = dataset._replace(levels=checks.positive_int(options.levels, "levels"))
    summary = data.describe(dataset)
    likelihood = _likelihood(config, dataset, summary)
    real = likelihood == "normal" and dataset.levels is None and dataset.train.x.ndim == 2
    standardized = real and own if options.standardize == "auto" else options.standardize == "yes"
    dataset, offset = narrowed(dataset, shift=standardized and likelihood == "normal")
    digest = fingerprint((dataset[:3], dataset.labels))
    scaling = _scaling(dataset, likelihood) if standardized else None
    facts = Facts(
        x_shape=tuple(dataset.train.x.shape[1:]),
        likelihood=likelihood,
        size=dataset.levels or int(summary.maximum) + (likelihood == "categorical"),
        levels=dataset.levels,
        context_size=_num_classes(config, dataset),
        encode_mask=dataset.train.mask is not None and config.model.network == "mlp",
        mean=scaling and _tuples(scaling.mean.astype(np.float32).tolist()),
        scale=scaling and _tuples(scaling.scale.astype(np.float32).tolist()),
        columns=dataset.columns,
        label_names=dataset.label_names,
        digest=digest,
        offset=None if offset is None else _tuples(offset.tolist()),
    )
    if facts.context_size:
        labels = dataset.labels or {}
        dataset = dataset._replace(**{part: getattr(dataset, part)._replace(context=labels[part]) for part in PARTS})
    return dataset, facts


def _scaling(dataset: data.Dataset, likelihood: str) -> data.Scaling:
    if likelihood != "normal":
        raise ValueError(
            f"--standardize is for real numbers, and the likelihood is {likelihood}; use --likelihood normal"
        )
    try:
        return data.standardize(dataset)[1]
    except ValueError as error:
        raise ValueError(
            f"{error}; or use --standardize no, and for grey images of your own --levels 255 (or what white is)"
        ) from error


def _tuples(value: Any) -> Any:
    """Lists as tuples all the way down, so that facts compare equal after a trip through JSON."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _likelihood(config: RunConfig, dataset: data.Dataset, summary: data.Summary) -> str:
    chosen = config.model.likelihood
    if chosen != "auto":
        return chosen
    if summary.kind == "binary":
        return "bernoulli"
    # Whole numbers in images are grey levels.
    grey = dataset.levels is not None or len(summary.event_shape) > 1
    return "binomial" if summary.kind == "counts" and (grey or summary.maximum <= _LARGEST_COUNT) else "normal"


def _num_classes(config: RunConfig, dataset: data.Dataset) -> int:
    if not config.model.conditional:
        return 0
    if dataset.labels is None:
        raise ValueError(f"--conditional needs labels, and {config.name} has none; name their column with --labels")
    return int(max(part.max(initial=0) for part in dataset.labels.values())) + 1


def build_model(config: RunConfig, facts: Facts) -> Model:
    """The model of a run.

    Raises:
        ValueError: settings out of range, or that do not go together.
    """
    model = _model(config, facts)
    return model if facts.mean is None else models.in_own_units(model, facts.mean, facts.scale)


def _model(config: RunConfig, facts: Facts) -> Model:
    options = config.model
    family = _family(options, facts)
    shared: dict[str, Any] = {
        "x_shape": facts.x_shape,
        "latent_size": options.latent_size,
        "likelihood": family,
        "context_size": facts.context_size,
    }
    activation = {"tanh": jnp.tanh}.get(options.activation) or getattr(jax.nn, options.activation)
    if options.network == "mlp":
        return models.vae(
            hidden_sizes=options.hidden_sizes,
            dropout_rate=options.dropout,
            activation=activation,
            encode_mask=facts.encode_mask,
            **shared,
        )
    if options.dropout:
        raise ValueError(f"--dropout ({options.dropout:g}) is for --network mlp; add --dropout 0 to --network conv")
    chosen: dict[str, Any] = {"context_size": facts.context_size, "activation": activation}
    encoder = nets.conv_encoder(facts.x_shape, options.hidden_sizes, 2 * options.latent_size, **chosen)
    decoder = nets.conv_decoder(
        options.latent_size,
        options.hidden_sizes[::-1],
        facts.x_shape,
        outputs=family.outputs,
        use_output_bias=False,
        **chosen,
    )
    return models.vae(encoder=encoder, decoder=decoder, **shared)


def _family(options: settings.Model, facts: Facts) -> likelihoods.Likelihood:
    if facts.likelihood != "normal" and options.sigma != settings.Model().sigma:
        raise ValueError(f"--sigma is for --likelihood normal, and the likelihood is {facts.likelihood}; leave it out")
    if facts.likelihood == "binomial":
        return likelihoods.binomial(facts.size)
    if facts.likelihood == "categorical":
        return likelihoods.categorical(facts.size)
    if facts.likelihood == "normal":
        try:
            scale: float | str = float(options.sigma)
        except ValueError:
            scale = options.sigma.replace("-", "_")
        return likelihoods.normal(scale)
    return likelihoods.resolve(facts.likelihood)


def build_preprocess(facts: Facts) -> Callable[[Key, Any], Batch] | None:
    """What happens to each batch: grey images become binary, or numbers in [0, 1], where the likelihood wants that."""
    if facts.levels is None or facts.likelihood not in ("bernoulli", "normal"):
        return None
    kind = data.dynamic_binarization if facts.likelihood == "bernoulli" else data.unit_interval
    return kind(levels=facts.levels)


def build_estimator(config: RunConfig, model: Model, steps_per_epoch: int) -> Estimator:
    """The gradient estimator, its objective inside."""
    options = config.objective
    beta: Any = checks.real(options.beta, "beta", minimum=0.0)
    free_bits = checks.real(options.free_bits, "free_bits", minimum=0.0)
    if options.warmup_epochs:
        steps = checks.positive_int(options.warmup_epochs, "warmup_epochs") * steps_per_epoch
        beta = optax.linear_schedule(0.0, options.beta, steps)
    if options.objective == "elbo":
        objective = functools.partial(objectives.elbo, beta=beta, free_bits=free_bits)
    elif beta != 1.0 or free_bits:
        raise ValueError(
            f"beta, warmup_epochs and free_bits are for --objective elbo, and this is {options.objective}; leave them out"
        )
    else:
        objective = getattr(objectives, options.objective)
    constructors = {row.name: row.constructor for row in estimators.catalogue()}
    return constructors[options.estimator](model, objective, num_samples=options.train_samples, noise=options.noise)


def build_optimizer(config: RunConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimiser with its schedule, clipping and weight decay."""
    options = config.optimizer
    rate = checks.real(options.learning_rate, "learning_rate", minimum=0.0, open_minimum=True)
    checks.real(options.weight_decay, "weight_decay", minimum=0.0)
    if options.weight_decay and options.optimizer != "adamw":
        raise ValueError(
            f"--weight-decay is for --optimizer adamw, got {options.optimizer}; name that, or leave it out"
        )
    warmup = options.warmup_steps
    if not 0 <= warmup < config.training.epochs * steps_per_epoch:
        raise ValueError(
            f"warmup_steps must be below the {config.training.epochs * steps_per_epoch} steps of the run, got {warmup}"
        )
    steps = config.training.epochs * steps_per_epoch - warmup
    schedule: Any = {
        "constant": optax.constant_schedule(rate),
        "cosine": optax.cosine_decay_schedule(rate, steps),
        "linear": optax.linear_schedule(rate, 0.0, steps),
        "exponential": optax.exponential_decay(rate, steps, 0.01),
    }[options.schedule]
    if warmup:
        schedule = optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), schedule], [warmup])
    extra: dict[str, Any] = {"weight_decay": options.weight_decay} if options.optimizer == "adamw" else {}
    optimizer = getattr(optax, options.optimizer)(schedule, **extra)
    if options.clip_norm is None:
        return optimizer
    limit = checks.real(options.clip_norm, "clip_norm", minimum=0.0, open_minimum=True)
    return optax.chain(optax.clip_by_global_norm(limit), optimizer)


def write_facts(path: Path, facts: Facts) -> None:
    """Keeps the facts as JSON."""
    write_text(path, json.dumps(facts._asdict(), indent=2) + "\n")


def read_facts(path: Path) -> Facts:
    """The facts of a run.

    Raises:
        CheckpointError: a file that is missing or damaged.
    """
    try:
        content: Any = json.loads(path.read_bytes())
        return Facts(**{name: _tuples(value) for name, value in content.items()})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is missing or damaged ({error}); the model cannot be rebuilt without it"
        ) from error
