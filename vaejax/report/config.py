"""Everything that decides a run, as typed and frozen dataclasses; JSON in and out.

Field docstrings are the command line's help.
"""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal

from vaejax import checks


@dataclasses.dataclass(frozen=True)
class Data:
    """The data."""

    labels: str | None = None
    """Own files: the column (CSV) or array (npz) that holds labels."""
    array: str | None = None
    """Own npz files: the array to model, where there are several."""
    delimiter: str | None = None
    """Own tables: what separates the cells; found out if not given."""
    missing: tuple[str, ...] = ()
    """Own tables: more words that stand for a missing cell (besides empty, NA, NaN, ?, ., null, None)."""
    without: tuple[str, ...] = ()
    """Own tables: columns to leave out, by name (x_0, x_1, … where they have none)."""
    header: bool = False
    """Own tables: the first row holds names, even where it may be an example."""
    no_header: bool = False
    """Own tables: the first row is an example; columns are named x_0, x_1, …"""
    numeric_labels: bool = False
    """Own files: labels of text are the numbers that they spell, so that 1, 01 and 1.0 are one class."""
    levels: int | None = None
    """Own grey images of whole numbers: the level that stands for 1, such as 255."""
    split: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Own files: fractions that train, validate and test."""
    split_seed: int = 0
    """Own files: seed of the split."""
    standardize: Literal["auto", "yes", "no"] = "auto"
    """Let the networks see every entry with mean 0 and sd 1 (results stay in the data's units); auto: own real numbers."""
    data_dir: str | None = None
    """Where named datasets are; without it VAEJAX_DATA, then ~/.cache/vaejax."""


@dataclasses.dataclass(frozen=True)
class Model:
    """The model."""

    latent_size: int = 2
    """Dimension of z."""
    network: Literal["mlp", "conv"] = "mlp"
    """Kind of networks; conv needs images."""
    hidden_sizes: tuple[int, ...] = (64,)
    """Widths of the encoder's hidden layers (conv: channels); the decoder has them in reverse."""
    activation: Literal["tanh", "relu", "gelu", "silu", "elu"] = "tanh"
    """Activation of the hidden layers."""
    dropout: float = 0.0
    """Dropout rate, in training only (mlp)."""
    likelihood: Literal["auto", "bernoulli", "binomial", "categorical", "poisson", "normal"] = "auto"
    """p(x|z); auto: bernoulli for binary data, binomial for counts and grey levels, normal for real numbers."""
    sigma: str = "shared"
    """Normal likelihood: shared, per_dimension, per_example (σ(z)), or a number."""
    conditional: bool = False
    """Give the labels to both networks."""


@dataclasses.dataclass(frozen=True)
class Objective:
    """The objective and its gradient."""

    objective: Literal["elbo", "iwae"] = "elbo"
    """What is maximised; iwae: the importance-weighted bound of --train-samples draws."""
    beta: float = 1.0
    """Weight of the ELBO's KL."""
    warmup_epochs: int = 0
    """Epochs over which the weight of the KL rises from 0."""
    free_bits: float = 0.0
    """Nats of KL a latent dimension that cost nothing."""
    estimator: Literal["pathwise", "sticking_the_landing", "doubly_reparameterized"] = "pathwise"
    """Gradient estimator: sticking_the_landing for the elbo, doubly_reparameterized for both."""
    train_samples: int = 1
    """Draws of z per example and step."""
    noise: Literal["independent", "antithetic", "sobol"] = "independent"
    """How the draws of an example hang together."""


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The optimiser."""

    optimizer: Literal["adam", "adamw", "adamax", "nadam", "rmsprop", "sgd"] = "adam"
    """By name, as in Optax."""
    learning_rate: float = 3e-3
    """The largest rate of the schedule."""
    schedule: Literal["constant", "cosine", "linear", "exponential"] = "cosine"
    """How the rate falls: to 0 along a cosine or a line, to a hundredth exponentially, or not at all."""
    warmup_steps: int = 0
    """Steps over which the rate rises from 0 first."""
    weight_decay: float = 0.0
    """Decoupled weight decay (adamw)."""
    clip_norm: float | None = None
    """Largest norm of the gradient."""


@dataclasses.dataclass(frozen=True)
class Training:
    """The training."""

    epochs: int = 200
    """Passes over the training data."""
    batch_size: int = 50
    """Examples per step."""
    seed: int = 0
    """Of all random numbers."""
    patience: int | None = None
    """End after this many epochs without a better validation ELBO."""
    validation_samples: int = 10
    """Draws per validation example."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """What a NaN does: ends training, or leaves that update out."""
    save_every: float = 30.0
    """Seconds between checkpoints."""
    pictures_every: int | None = None
    """Epochs between pictures of the model in training."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The evaluation."""

    samples: int = 1000
    """Importance samples per test example."""
    use: Literal["best", "last"] = "best"
    """The parameters with the best validation ELBO, or the last ones."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training run, from data to test log-likelihood."""

    data: Data = Data()
    model: Model = Model()
    objective: Objective = Objective()
    optimizer: Optimizer = Optimizer()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    name: str = ""


_IMAGES = RunConfig(
    model=Model(latent_size=40, hidden_sizes=(300, 300), likelihood="bernoulli"),
    optimizer=Optimizer(learning_rate=3e-3),
    training=Training(epochs=60, batch_size=100, validation_samples=1),
)
PRESETS = {
    "digits": RunConfig(
        model=Model(latent_size=16, hidden_sizes=(256, 256), dropout=0.1),
        optimizer=Optimizer(learning_rate=2e-3),
        training=Training(epochs=300),
    ),
    "mnist": _IMAGES,
    "fashion_mnist": _IMAGES,
    "mnist_static": _IMAGES,
    "frey": RunConfig(
        model=Model(latent_size=10, hidden_sizes=(200, 200), likelihood="normal"),
        optimizer=Optimizer(learning_rate=1e-3),
        training=Training(epochs=300),
    ),
    "sprites": RunConfig(
        model=Model(latent_size=10, hidden_sizes=(256, 256), likelihood="bernoulli"),
        optimizer=Optimizer(learning_rate=2e-3),
        training=Training(epochs=100, batch_size=50, validation_samples=1),
    ),
}


def preset(name: str) -> RunConfig:
    """The settings that a dataset starts from; those of `RunConfig` for one's own file.

    Examples:
        >>> preset("mnist").model.hidden_sizes
        (300, 300)
    """
    return dataclasses.replace(PRESETS.get(name, RunConfig()), name=name)


def to_json(config: RunConfig) -> str:
    """The settings as JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(path: Path, name: str | None = None) -> RunConfig:
    """Settings from a JSON file; what it leaves out is as in `preset` for the data named, or for its own ``name``.

    Raises:
        FileNotFoundError: nothing to read there.
        ValueError: no JSON, an unknown or misspelt setting, a value of the wrong kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileNotFoundError(
            f"no settings in {path} ({error.strerror}); name a file such as a run's config.json"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}); write settings as a run's config.json has them") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold an object of settings, as a run's config.json does, got {type(content).__name__}"
        )
    chosen = name or content.get("name", "")
    return _read(content, preset(chosen if isinstance(chosen, str) else ""), str(path), "")


def _read(content: Any, default: Any, path: str, where: str) -> Any:
    """``default`` with the fields that ``content`` has."""
    if not isinstance(content, dict):
        raise ValueError(f"{path}: {where or 'the whole'} must be an object, got {content!r}")
    hints = typing.get_type_hints(type(default))
    changes = {}
    for name, value in content.items():
        full = f"{where}.{name}" if where else name
        try:
            checks.one_of(name, "setting", hints)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        inner = getattr(default, name)
        if dataclasses.is_dataclass(inner):
            changes[name] = _read(value, inner, path, full)
        else:
            changes[name] = _typed(value, hints[name], f"{path}: {full}")
    return dataclasses.replace(default, **changes)


def _typed(value: Any, kind: Any, where: str) -> Any:
    """The JSON value as the type that a field declares."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value in options:
            return value
        raise ValueError(f"{where} must be one of {', '.join(map(repr, options))}, got {value!r}")
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _typed(value, options[0], where)
    if origin is tuple:
        fixed = options[-1] is not Ellipsis
        if not isinstance(value, list) or (fixed and len(value) != len(options)):
            raise ValueError(f"{where} must be a list{f' of {len(options)} numbers' if fixed else ''}, got {value!r}")
        return tuple(_typed(v, options[0], where) for v in value)
    wanted = (int, float) if kind is float else kind
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} must be {kind.__name__}, got {value!r}")
    return float(value) if kind is float else value
