"""How good the density is, in one call: every bound of the evidence that the model allows, side by side, and what each says."""

import time
import types
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaejax import checks
from vaejax.estimators.base import peek_posterior
from vaejax.evaluate.blocks import in_blocks, seconds_spent
from vaejax.evaluate.encoding import refuse_nan
from vaejax.evaluate.evidence.ais import ais
from vaejax.evaluate.evidence.bdmc import bdmc
from vaejax.evaluate.evidence.bounds import bounds
from vaejax.evaluate.evidence.chains import fingerprint, settings_of, unmovable
from vaejax.evaluate.evidence.enumeration import MAX_STATES, exact_log_marginal, num_states
from vaejax.evaluate.evidence.importance import UntrustworthyEstimate
from vaejax.evaluate.evidence.lines import EvidenceReport, Line, best, compared, trust, two_sided
from vaejax.evaluate.stream import BLOCK
from vaejax.evaluate.summary import mean_estimate, representative_rows
from vaejax.types import Batch, Key, Model, Params, on_device

# Wu, Burda, Salakhutdinov & Grosse 2017, section 5: for a GPU and patience.
WU_2017 = types.MappingProxyType({"num_temperatures": 10_000, "num_chains": 16, "num_leapfrog": 10, "start": "prior"})


def evidence_report(
    model: Model,
    params: Params,
    key: Key,
    batch: Any,
    *,
    num_samples: int = 5000,
    num_draws: int = 50,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    start: str = "prior",
    num_simulated: int | None = None,
    max_states: int = MAX_STATES,
    block_size: int | None = None,
    directory: Any = None,
    progress: bool | None = None,
) -> EvidenceReport:
    """ELBO, IWAE_K, importance sampling, AIS and the two-sided gap on simulated data, or the exact evidence of discrete latents.

    Continuous latents are annealed; discrete ones are summed over where they have few enough states, else importance sampling stands
    alone and a note says so. ``**WU_2017`` gives the settings of Wu et al. 2017.

    Args:
        model: the model.
        params: its parameters.
        key: typed key.
        batch: a `Batch` or an array ``[n, *event]``.
        num_samples: S of importance sampling, a multiple of K.
        num_draws: K of IWAE's bound.
        num_temperatures: T of AIS, as are the next three.
        num_chains: C.
        num_leapfrog: steps of a transition.
        start: where chains begin.
        num_simulated: examples simulated for the gap; None takes as many as the batch has of positive weight.
        max_states: of discrete latents that are summed over.
        block_size: examples annealed between two looks at the disk and the bar; None takes fewer the longer the way is.
        directory: keeps what is done, so that the same call goes on there.
        progress: bars; None shows them on a terminal only.

    Returns:
        `EvidenceReport`; ``print`` it.

    Raises:
        TypeError, ValueError: as `log_marginal`, `ais`, `bdmc`; a batch without an axis of examples.

    Source:
        Burda et al. 2016; Wu et al. 2017; Grosse et al. 2015; Vehtari et al. 2024.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> report = evidence_report(model, model.init(jax.random.key(0)), jax.random.key(1), jax.numpy.ones((5, 4)), num_samples=100)
        >>> [line.name for line in report.lines]
        ['ELBO', 'IWAE_50', 'IS_100', 'exact']
    """
    checks.key(key)
    batch, columns = _opened(model, batch)
    seen = peek_posterior(model, params, key, batch)
    if seen.batch_ndims != 1:
        raise ValueError(
            f"evidence_report needs a batch [n, *event], got {seen.batch_ndims} batch axes; reshape the data"
        )
    settings_of(num_temperatures, num_chains, num_leapfrog, start, None)
    counted = int(np.sum(columns.get("weight", np.ones(len(batch.x))) > 0))
    count = counted if num_simulated is None else checks.positive_int(num_simulated, "num_simulated")
    keys = jax.random.split(key, 3)
    folders = {name: None if directory is None else Path(directory) / name for name in ("bounds", "ais", "bdmc")}
    lines = _bounds(model, params, keys[0], batch, columns, num_samples, num_draws, folders["bounds"], progress)
    notes, reason = [trust(columns, num_samples)], unmovable(seen)
    if reason is None:
        chains = {
            "num_temperatures": num_temperatures, "num_chains": num_chains, "num_leapfrog": num_leapfrog, "start": start,
            "progress": progress, "block_size": block_size or _block_size(num_temperatures),
        }  # fmt: skip
        lines.append(_annealed(model, params, keys[1], batch, columns, {**chains, "directory": folders["ais"]}))
        lines.append(_gap(model, params, keys[2], batch, count, columns, {**chains, "directory": folders["bdmc"]}))
        notes += [*compared(columns), *two_sided(lines[-1].value, batch)]
    elif num_states(seen) <= max_states:
        lines.append(_exact(model, params, batch, max_states, columns))
        notes.append(
            "the latents are discrete: their states are summed over, and AIS, which moves by gradients, is left out"
        )
    else:
        notes.append(
            f"no AIS and no enumeration: {reason}; importance sampling stands alone, a lower bound in the mean"
        )
    return EvidenceReport(tuple(lines), tuple(notes), columns, best(lines, columns), num_samples)


def _opened(model: Model, batch: Any) -> tuple[Batch, dict[str, np.ndarray]]:
    """The batch on the device, and its weights as the first of the columns."""
    batch = on_device(checks.batch(batch, "batch", model))
    columns = {} if batch.weight is None else {"weight": np.asarray(batch.weight)}
    # The batch keeps them: rows of weight 0 may be without any observed entry.
    return batch, columns


def _block_size(num_temperatures: int) -> int:
    """Examples for some minutes of annealing, and enough of them to fill a matrix product."""
    return max(10, min(BLOCK, 20_000 // max(1, num_temperatures)))


def _bounds(
    model: Model,
    params: Params,
    key: Key,
    batch: Batch,
    columns: dict[str, np.ndarray],
    num_samples: int,
    num_draws: int,
    folder: Any,
    progress: Any,
) -> list[Line]:
    def run(key: Key, block: Batch) -> dict[str, Any]:
        with warnings.catch_warnings():  # a note counts them for all blocks together
            warnings.simplefilter("ignore", UntrustworthyEstimate)
            found = bounds(model, params, key, block, num_samples=num_samples, num_draws=num_draws)
        each: dict[str, Any] = {"elbo": found.elbo, "iwae": found.iwae, "importance": found.importance}
        kept = {name: part.estimate for name, part in each.items()}
        kept |= {f"{name}_error": part.standard_error for name, part in each.items()}
        weights = found.importance
        return kept | {"pareto_k": weights.pareto_k, "effective_sample_size": weights.effective_sample_size}

    began = time.perf_counter()
    settings = None if folder is None else (params, num_samples, num_draws, fingerprint(model, params, batch))
    columns |= in_blocks(
        run, key, batch, directory=folder, settings=settings, progress=progress, description="importance sampling"
    )
    seconds = _seconds(began, folder)
    weight = columns.get("weight")
    refuse_nan(columns["importance"] if weight is None else columns["importance"][weight > 0], "the log-weights")
    names = {"elbo": "ELBO", "iwae": f"IWAE_{num_draws}", "importance": f"IS_{num_samples}"}
    says = {
        "elbo": "what training maximises; below log p(x) by KL(q(z|x) ‖ p(z|x)), the inference gap",
        "iwae": f"the mean of log of {num_draws} averaged importance weights: between the ELBO and log p(x)",
        "importance": f"log of the mean of {num_samples} importance weights; Pareto k̂ says whether to believe it",
    }
    means = {n: mean_estimate(columns[n], columns[f"{n}_error"], weight=weight) for n in names}
    return [Line(names[n], means[n], "lower bound", says[n], seconds) for n in names]


def _annealed(
    model: Model, params: Params, key: Key, batch: Batch, columns: dict[str, np.ndarray], options: dict[str, Any]
) -> Line:
    began = time.perf_counter()
    found = ais(model, params, key, batch, **options)
    columns["ais"], columns["ais_error"] = np.asarray(found.estimate), np.asarray(found.standard_error)
    columns["ais_acceptance"] = np.asarray(found.acceptance)
    columns["ais_effective_sample_size"] = np.asarray(found.effective_sample_size)
    says = f"{options['num_chains']} chains from the {options['start']} to the posterior, each tuned by a pilot"
    value = mean_estimate(found, weight=columns.get("weight"))
    return Line(f"AIS_{options['num_temperatures']}", value, "lower bound", says, _seconds(began, options["directory"]))


def _gap(
    model: Model,
    params: Params,
    key: Key,
    batch: Batch,
    count: int,
    columns: dict[str, np.ndarray],
    options: dict[str, Any],
) -> Line:
    began = time.perf_counter()
    rows = representative_rows(len(batch.x), count, columns.get("weight"))
    context = jax.tree.map(lambda leaf: leaf[rows], batch.context)
    found = bdmc(model, params, key, num_examples=count, context=context, **options)
    columns["gap"] = np.asarray(found.gap)
    says = "upper minus lower bound, on data drawn from the model itself: in the mean neither is off by more there"
    # The reverse chains of an example begin at one draw: the spread between examples alone tells the error.
    value = mean_estimate(columns["gap"], np.full(count, np.nan))
    return Line("gap, simulated", value, "diagnostic", says, _seconds(began, options["directory"]))


def _seconds(began: float, folder: Path | None) -> float:
    """The time since, or where blocks are kept that of all of them."""
    return time.perf_counter() - began if folder is None else seconds_spent(folder)


def _exact(model: Model, params: Params, batch: Batch, max_states: int, columns: dict[str, np.ndarray]) -> Line:
    began = time.perf_counter()
    columns["exact"] = np.asarray(exact_log_marginal(model, params, batch, max_states=max_states))
    value = mean_estimate(columns["exact"], np.zeros_like(columns["exact"]), weight=columns.get("weight"))
    return Line("exact", value, "exact", "log p(x) summed over all states of the latents", time.perf_counter() - began)
