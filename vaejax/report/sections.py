"""What a report says of a trained model, a section a question, each from arrays and a model: nothing here opens a run."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import evaluate, plots
from vaejax.evaluate.encoding import encode, posterior_mean
from vaejax.evaluate.summary import count_in_words
from vaejax.report.measure import Results
from vaejax.report.page import Entry, Section, of_mean
from vaejax.types import Batch, Key, Model, Params

# Latent dimensions named one by one.
_ROWS = 12


def density(results: Results, report: evaluate.EvidenceReport, gap: evaluate.InferenceGap, mask: Any = None) -> Section:
    """How good the density is: the whole part of the data, then some examples from every side."""
    whole = (
        of_mean("ELBO, all examples", results.elbo, "E log p(x|z) − KL(q(z|x) ‖ p(z)), maximised in training: a lower bound of log p(x)."),
        of_mean(
            "log-likelihood, all examples", results.log_likelihood,
            f"log of the mean of {results.samples} importance weights p(x,z)/q(z|x): in the mean a lower bound of log p(x) that rises with "
            "their number (Burda et al. 2016).", seconds=results.seconds,
        ),
        Entry(
            "Pareto k̂ too large", results.untrusted if results.untrusted is not None else "not defined", None,
            f"for how many of the {count_in_words(results.log_likelihood.num_examples)} examples the tail of the weights says that "
            "neither estimate nor error can be trusted (Vehtari et al. 2024).",
        ),
        Entry("effective samples, median", results.effective_sample_size, None, f"(Σw)²/Σw², of {results.samples} importance weights."),
    )  # fmt: skip
    count = len(report.columns["elbo"])
    some = tuple(_of_line(line, count) for line in report.lines)
    says = {
        "approximation": "log p(x), the larger of the one to quote and of importance sampling from the best diagonal Gaussian q of each "
        "example, less the ELBO of that q: what the family costs, or at least that (Cremer et al. 2018).",
        "amortisation": "that ELBO less the encoder's: what one encoder for all examples costs (Cremer et al. 2018).",
    }
    gaps = tuple(of_mean(f"{name} gap", gap.mean(name), text) for name, text in says.items())
    lead = (
        f"All examples by importance sampling; then {count} of them, chosen at random, from every side. All numbers are in nats, larger is "
        f"better, and each but the diagnostics is of log p(x). To quote for the {count}: {report.best}."
    )
    caption = f"Bounds of the {count} examples relative to importance sampling, paired; Pareto k̂ of each example"
    columns: dict[str, Any] = dict(report.columns)
    columns |= {"approximation_gap": gap.approximation, "amortisation_gap": gap.amortisation}
    return Section(
        "Density",
        lead,
        (*whole, *some, *gaps),
        (*_of_observed(mask), *report.notes, *gap.notes),
        {"evidence": (plots.evidence(report), caption)},
        columns,
    )


def _of_line(line: evaluate.Line, count: int) -> Entry:
    if line.kind == "diagnostic":
        return of_mean(line.name, line.value, f"{line.says}.", seconds=line.seconds)
    return of_mean(
        f"{line.name}, {count} examples", line.value, f"{line.kind} of log p(x): {line.says}.", seconds=line.seconds
    )


def _of_observed(mask: Any) -> tuple[str, ...]:
    if mask is None:
        return ()
    share = 100 * (1 - float(np.mean(np.asarray(mask))))
    return (
        f"{share:.1f}% of the cells are missing: every log p(x) is of the observed ones of its row, and does not compare with rows or "
        "tables where others are missing",
    )


def latents(model: Model, params: Params, key: Key, batch: Batch, split: str) -> Section:
    """What the latents do, from held-out examples."""
    report_key, usage_key = jax.random.split(key)
    found = evaluate.latent_report(model, params, report_key, batch)
    usage = evaluate.latent_usage(model, params, usage_key, batch, per_dimension=False)
    whole = found.aggregate
    parts = [
        ("mean KL", whole.mean_kl, "E_x KL(q(z|x) ‖ p(z)), the nats that the code costs; the sum of the next two."),
        ("mutual information", whole.mutual_information,
         f"I(x; z) under the encoder, of {whole.num_components} examples: at most log N = {whole.ceiling:.2f} (Hoffman & Johnson 2016)."),
        ("aggregate KL", whole.marginal_kl, "KL(q(z) ‖ p(z)), how far the codes of all examples together are from the prior."),
        ("total correlation", whole.total_correlation, "KL(q(z) ‖ ∏ q(z_d)): how dependent the dimensions are (Chen et al. 2018)."),
        ("dimension-wise KL", whole.dimension_kl, "Σ_d KL(q(z_d) ‖ p(z_d)); with the total correlation it is the aggregate KL."),
        ("latent usage", usage.mean, "what log p(x|z) falls by when z is another example's: about 0 where the decoder ignores z."),
    ]  # fmt: skip
    entries = [
        Entry("verdict", found.verdict, None, f"collapsed, partly or healthy: {found.reason} (Lucas et al. 2019).")
    ]
    entries += [of_mean(name, mean, text) for name, mean, text in parts if mean is not None]
    if found.kl is not None:
        text = "the same in closed form, without the error of draws."
        entries.insert(2, of_mean("mean KL, closed form", found.kl.total, text))
    entries += _units(found)
    figures = {}
    if found.kl is not None:
        figures["kl_per_latent"] = (
            plots.kl_per_latent(model, params, batch),
            "What each latent dimension carries, largest first",
        )
    lead = f"{len(batch.x)} {split} examples. Dimensions are counted from 0."
    return Section("Latents", lead, tuple(entries), found.notes, figures, _columns_of(found))


def _units(found: evaluate.LatentReport) -> list[Entry]:
    active = found.active
    if active is None:
        return []
    size = active.variance.size
    near = _near(active.variance, active.variance_standard_error, found.variance_threshold)
    says = f"dimensions whose posterior mean varies between examples by more than {found.variance_threshold:g} (Burda et al. 2016); {near}."
    entries = [Entry("active units, by variance", f"{active.num_by_variance} of {size}", None, says)]
    if active.kl is None or active.kl_standard_error is None:
        return entries
    near = _near(active.kl, active.kl_standard_error, found.kl_threshold)
    says = f"dimensions whose mean KL is above {found.kl_threshold:g} nats; {near}."
    entries.append(Entry("active units, by KL", f"{active.num_by_kl} of {size}", None, says))
    for d in np.argsort(-active.kl, kind="stable")[:_ROWS]:
        spread = f"{active.variance[d]:.3f} ± {active.variance_standard_error[d]:.3f}"
        says = f"mean KL ± between examples; variance of E[z_{d}|x] {spread}."
        entries.append(Entry(f"KL of z_{d}", float(active.kl[d]), float(active.kl_standard_error[d]), says, "nats"))
    return entries


def _near(value: np.ndarray, error: np.ndarray, threshold: float) -> str:
    """How many dimensions their errors leave on either side."""
    return f"{int(np.sum(np.abs(value - threshold) < 2 * error))} within two standard errors of the threshold"


def _columns_of(found: evaluate.LatentReport) -> dict[str, Any]:
    active = found.active
    if active is None:
        return {}
    columns = {"variance_of_mean": active.variance, "variance_of_mean_error": active.variance_standard_error}
    return columns if active.kl is None else {**columns, "kl": active.kl, "kl_error": active.kl_standard_error}


def calibration(model: Model, params: Params, key: Key, context: Any, mask: Any, *, num_simulations: int) -> Section:
    """Whether the encoder's q is the posterior, on data that the model makes."""
    found = evaluate.calibration(model, params, key, num_simulations=num_simulations, context=context)
    failed = int(found.failed.sum())
    order = [len(found.names) - 1, *np.argsort(found.p_values[:-1], kind="stable")[:_ROWS]]
    entries = [Entry(
        "verdict", "calibrated" if found.passed else f"{failed} of {len(found.names)} quantities fail", None,
        f"chi-square tests of uniform ranks, corrected by Holm's method, together at level {found.level:g}.",
    )]  # fmt: skip
    entries += [
        Entry(found.names[q], float(found.outer_rank[q]), float(found.outer_rank_error[q]),
              f"outer rank; adjusted p {_p(found.adjusted_p_values[q])}: {found.verdicts[q]}.")
        for q in order
    ]  # fmt: skip
    lead = (
        f"{len(found.ranks)} pairs (z, x) simulated from the model: each z is an exact draw from the posterior of its x, and should rank "
        f"like one of {found.num_draws} draws from q(z|x), and so should log p(x|z) (Talts et al. 2018; Modrák et al. 2023). A test of q, "
        "not of the density. The outer rank is the mean squared distance of the ranks from the middle, as a multiple of what is "
        "expected: 1 where calibrated."
    )
    caption = "Ranks of the truth among draws from q: flat where q is the posterior, ∪ where it is too narrow, ∩ where too wide"
    figures = {"calibration": (plots.calibration(found), caption)}
    columns = {"quantities": found.names, "p_values": found.p_values, "adjusted_p_values": found.adjusted_p_values}
    notes = (
        ()
        if mask is None
        else ("the simulated rows are complete, unlike the data: q is judged on rows that it rarely met",)
    )
    return Section("Calibration of the encoder", lead, tuple(entries), notes, figures, columns)


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else "below 0.0001"


def samples(model: Model, params: Params, key: Key, batch: Batch, figures: Any, split: str) -> Section:
    """How far draws of the model are from the data, in the entries of x and in the encoder's means."""
    count = len(batch.x)
    keys = jax.random.split(key, 5)
    _, drawn = evaluate.simulate(model, params, keys[0], count, batch.context)
    data = np.asarray(batch.x, float)
    made = np.asarray(drawn.x, float)
    if batch.mask is not None:
        # What is missing in an example is missing in the draw beside it.
        data, made = (np.where(np.asarray(batch.mask), v, 0.0) for v in (data, made))

    # Rows of both sets: context and mask travel with them.
    codes = [
        np.asarray(posterior_mean(encode(model, params, batch._replace(x=jnp.asarray(x, batch.x.dtype))), code_key))
        for x, code_key in zip((data, made), keys[3:])
    ]
    entries: list[Entry] = []
    for name, pair, key in (("x", (data, made), keys[1]), ("codes", (codes[0], codes[1]), keys[2])):
        first, second = (part.reshape(count, -1) for part in pair)
        entries += _compared(name, first, second, key)
    lead = (
        f"{count} draws x ~ p(x|z), z ~ p(z) beside as many {split} examples, in the entries of x and in the means E[z|x] of the encoder. "
        "Numbers in other features, or of other numbers of examples, cannot be compared with these."
    )
    notes = (
        ()
        if batch.mask is None
        else ("what is missing in a row is taken out of the draw beside it, too: both hold 0 there",)
    )
    return Section("Samples", lead, tuple(entries), notes, figures)


def _compared(name: str, data: np.ndarray, made: np.ndarray, key: Key) -> list[Entry]:
    mmd_key, test_key = jax.random.split(key)
    frechet = evaluate.frechet_distance(data, made)
    discrepancy = evaluate.mmd(data, made, key=mmd_key)
    told = evaluate.classifier_two_sample_test(data, made, test_key)
    return [
        Entry(f"Fréchet distance, {name}", frechet.value, frechet.standard_error,
              "squared, between Gaussians of the same means and covariances (Heusel et al. 2017), ± by jackknife; two halves of the data: "
              f"{frechet.floor:.3g}."),
        Entry(f"MMD², {name}", discrepancy.value, discrepancy.standard_error,
              f"unbiased, Gaussian kernel of width {discrepancy.bandwidth:.3g} (Gretton et al. 2012); p = {discrepancy.p_value:.2g} by "
              "permutation."),
        Entry(f"classifier's accuracy, {name}", told.accuracy, told.standard_error,
              f"of telling draws from data on held-out ones, 1/2 where it cannot (Lopez-Paz & Oquab 2017); p = {told.p_value:.2g}."),
    ]  # fmt: skip


def disentanglement(
    model: Model, params: Params, key: Key, batch: Batch, factors: Any, names: Any, split: str
) -> Section:
    """How the known factors of the data are laid out in the latents."""
    codes_key, score_key = jax.random.split(key)
    codes = np.asarray(posterior_mean(encode(model, params, batch), codes_key)).reshape(len(batch.x), -1)
    found = evaluate.disentanglement_report(codes, factors, score_key, factor_names=names)
    entries = tuple(
        Entry(
            name,
            score.value,
            score.standard_error,
            f"{evaluate.SCORE_MEANINGS[name]}; {found.chance[name]:.2f} by chance.",
        )
        for name, score in found.scores().items()
    )
    known = len(found.factor_names)
    lead = (
        f"Posterior means of {len(batch.x)} {split} examples against {known} known factors; each between chance and 1."
    )
    return Section("Disentanglement", lead, entries)
