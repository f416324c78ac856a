"""The command line: ``vaejax train digits`` and ``vaejax estimators``."""

import dataclasses
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tyro.conf import Positional
else:
    # tyro is an extra: without it the module still imports, and main says what to install.
    try:
        from tyro.conf import Positional
    except ImportError:
        Positional = list


@dataclasses.dataclass(frozen=True)
class Network:
    """The networks."""

    latent_size: int = 16
    """Dimension of z."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    dropout: float = 0.1
    """Dropout rate, in training only."""


@dataclasses.dataclass(frozen=True)
class Optimisation:
    """The optimisation."""

    epochs: int = 300
    """Passes over the training data."""
    batch_size: int = 50
    """Examples per step."""
    learning_rate: float = 2e-3
    """Adam's first rate; it falls to zero along a cosine."""
    beta: float = 1.0
    """Weight of the KL."""


def train(
    dataset: Positional[Literal["digits"]],
    likelihood: Literal["binomial", "bernoulli"] = "binomial",
    network: Network = Network(),
    optimisation: Optimisation = Optimisation(),
    samples: int = 1000,
    seed: int = 0,
    runs: Path = Path("runs"),
    progress: bool = True,
) -> int:
    """Trains a VAE, prints its test log-likelihood, and writes figures, a summary and the parameters to a new run directory.

    Args:
        dataset: digits: scikit-learn's 1797 handwritten digits, 8×8, grey levels 0–16.
        likelihood: binomial models the grey levels as counts out of 16; bernoulli binarises them, afresh at each epoch in training
            and once, with a fixed key, for validation and test.
        network: the networks.
        optimisation: the optimisation.
        samples: importance samples per test image.
        seed: of all random numbers.
        runs: directory in which the run's own directory is made.
        progress: show a progress bar (on a terminal only).
    """
    import jax

    import vaejax
    from vaejax import checks, report
    from vaejax.train import save_params

    for value, name in ((samples, "samples"), (optimisation.epochs, "epochs"), (optimisation.batch_size, "batch_size")):
        checks.positive_int(value, name)
    checks.real(optimisation.learning_rate, "learning_rate", minimum=0.0, open_minimum=True)
    checks.real(optimisation.beta, "beta", minimum=0.0)
    model, splits, preprocess = _build(likelihood, network)
    directory = report.new_run_directory(runs, dataset)
    print(f"{dataset} into {directory}")
    fit_key, test_key, evaluate_key, plot_key = jax.random.split(jax.random.key(seed), 4)
    result = _fit(fit_key, model, splits, preprocess, optimisation, progress)
    if not len(result.history.get("epoch", ())):
        directory.rmdir()
        raise KeyboardInterrupt("interrupted before the first epoch was whole")
    test = splits.test if preprocess is None else preprocess(test_key, splits.test)
    params = result.state.params
    save_params(directory / "params", params)  # before anything else can go wrong
    numbers = _evaluate(model, params, evaluate_key, test, samples)
    options = {
        "dataset": dataset,
        "likelihood": likelihood,
        "network": dataclasses.asdict(network),
        "optimisation": dataclasses.asdict(optimisation),
        "samples": samples,
        "seed": seed,
        "interrupted": result.interrupted,
        "versions": {"vaejax": vaejax.__version__, "jax": jax.__version__},
    }
    figures = _figures(model, params, plot_key, result.history, test)
    report.write_run(directory, summary={**options, **numbers}, history=result.history, figures=figures)
    print(f"parameters, summary.json and figures ({', '.join(figures)}) are in {directory}")
    return 130 if result.interrupted else 0


def _build(likelihood: str, network: Network) -> tuple[Any, Any, Any]:
    from vaejax import data, models
    from vaejax.dists import likelihoods

    splits = data.load("digits")
    binary = likelihood == "bernoulli"
    model = models.vae(
        x_shape=(8, 8),
        latent_size=network.latent_size,
        hidden_sizes=network.hidden_sizes,
        likelihood=likelihoods.bernoulli() if binary else likelihoods.binomial(16),
        dropout_rate=network.dropout,
    )
    return model, splits, data.dynamic_binarization(levels=16) if binary else None


def _fit(key: Any, model: Any, splits: Any, preprocess: Any, options: Optimisation, progress: bool) -> Any:
    import functools

    import optax

    from vaejax import estimators, objectives
    from vaejax.train import fit

    steps = options.epochs * (len(splits.train.x) // options.batch_size)
    return fit(
        key,
        model,
        splits.train,
        estimator=estimators.pathwise(model, functools.partial(objectives.elbo, beta=options.beta)),
        optimizer=optax.adam(optax.cosine_decay_schedule(options.learning_rate, max(steps, 1))),
        num_epochs=options.epochs,
        batch_size=options.batch_size,
        validation=splits.validation,
        preprocess=preprocess,
        progress=None if progress else False,
    )


def _evaluate(model: Any, params: Any, key: Any, test: Any, samples: int) -> dict[str, Any]:
    import jax
    import numpy as np

    from vaejax import evaluate

    bound_key, evidence_key = jax.random.split(key)
    bound = evaluate.elbo(model, params, bound_key, test, num_samples=min(samples, 100))
    evidence = evaluate.log_marginal(model, params, evidence_key, test, num_samples=samples)
    elbo = evaluate.mean_estimate(bound.estimate, bound.standard_error)
    log_likelihood = evaluate.mean_estimate(evidence.estimate, evidence.standard_error)
    effective = float(np.median(evidence.effective_sample_size))
    print(f"test ELBO            {elbo} nats")
    print(f"test log-likelihood  {log_likelihood} nats")
    print(
        f"The log-likelihood is a lower bound in the mean, from {samples} importance samples an image; the median image had"
    )
    print(
        f"{effective:.1f} effective ones, and while that is below some dozens more --samples raise it by more than the Monte Carlo ±."
    )
    return {
        "test_elbo": elbo._asdict(),
        "test_log_likelihood": log_likelihood._asdict(),
        "median_effective_sample_size": effective,
    }


def _figures(model: Any, params: Any, key: Any, history: Any, test: Any) -> dict[str, Any]:
    import jax

    from vaejax import plots

    reconstruction_key, sample_key = jax.random.split(key)
    first = jax.tree.map(lambda leaf: leaf[:10], test)
    made = {} if not len(history.get("epoch", ())) else {"loss": plots.curves(history)}
    return made | {
        "reconstructions": plots.reconstructions(model, params, reconstruction_key, first),
        "samples": plots.prior_samples(model, params, sample_key),
    }


def list_estimators() -> int:
    """Lists the gradient estimators: the latents they serve, whether they are unbiased, their source."""
    from vaejax import estimators

    for row in estimators.catalogue():
        print(
            f"{row.name}: latents {row.latents}; unbiased {row.unbiased}; needs K > 1 {row.needs_many_samples}; {row.source}"
        )
    return 0


def main() -> None:
    """The ``vaejax`` command; exits with 0, 1 for bad input, 2 for bad usage, 130 after Ctrl-C."""
    try:
        import tyro
    except ImportError:
        sys.exit("the command line needs tyro and matplotlib: pip install 'vaejax[cli]'")
    commands = {
        name: tyro.conf.configure(tyro.conf.OmitArgPrefixes)(f)
        for name, f in (("train", train), ("estimators", list_estimators))
    }
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            commands, prog="vaejax", description="Variational autoencoders in JAX."
        )
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        sys.exit(f"vaejax: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code)


if __name__ == "__main__":
    main()
