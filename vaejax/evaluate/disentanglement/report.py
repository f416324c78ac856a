"""How codes and known factors belong together: DCI, and all scores in one report."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import entr

from vaejax import checks
from vaejax.evaluate.disentanglement.accuracy import beta_vae_score, factor_vae_score, mean_score, sap
from vaejax.evaluate.disentanglement.factors import FactorScore, folds, mig, modularity, opened
from vaejax.evaluate.randomness import generator
from vaejax.evaluate.summary import jackknife
from vaejax.types import Key

_TINY = np.finfo(np.float64).tiny


class Dci(NamedTuple):
    """Disentanglement, completeness and informativeness of a code.

    Attributes:
        disentanglement: whether each dimension matters for one factor only; parts ``[D]``.
        completeness: whether each factor is in one dimension only; parts ``[F]``.
        informativeness: whether the factors can be told from the code: held-out accuracy; parts ``[F]``.
        importance: ``[D, F]``, each column sums to 1, or is 0 where nothing could be split.
    """

    disentanglement: FactorScore
    completeness: FactorScore
    informativeness: FactorScore
    importance: np.ndarray


def dci(codes: Any, factors: Any, key: Key, *, num_folds: int = 5, num_trees: int = 20) -> Dci:
    """Disentanglement, completeness and informativeness, from what a random forest needs to tell each factor.

    Forests tell each factor from all dimensions; R_jk is the importance of z_j for v_k (decrease of impurity, Σ_j R_jk = 1), the mean
    over folds. With entropies H to the base of the number of outcomes,

    - disentanglement Σ_j ρ_j (1 − H(R_j· / Σ_k R_jk)), ρ_j = Σ_k R_jk / Σ R: over factors, for each dimension;
    - completeness (1/F) Σ_k (1 − H(R_·k)): over dimensions (constant ones too), for each factor;
    - informativeness: the accuracy with which examples are told by the forests of the folds that they are not in.

    All dimensions stand for election at each split, and a leaf holds a tenth of a class's average number or more: importance then does
    not leak to dimensions that only came up by chance.

    Args:
        codes: ``[n, D]`` real, such as posterior means.
        factors: ``[n, F]`` integer classes, F ≥ 2.
        key: typed key, of folds and forests.
        num_folds: G, folds of the examples.
        num_trees: of each forest, of which there are G·F.

    Returns:
        `Dci`; each `FactorScore` is 1 at best. Disentanglement and completeness are 0 where importance is spread evenly (or there is none),
        informativeness is then about the share of the commonest class; a single dimension is complete. Standard errors: of the first two
        by the jackknife over the G folds (the forests' own noise makes them too large, about twice in simulations), of informativeness
        between examples, given the forests: binomial for a single factor. The matrix of each is the importance.

    Raises:
        TypeError, ValueError: codes or factors that do not fit (see `disentanglement_report`); fewer than two examples in a fold.

    Source:
        Eastwood & Williams 2018, section 2 (informativeness there is an error).

    Examples:
        >>> factors = np.indices((4, 5, 6)).reshape(3, -1).T
        >>> print(*dci(factors.astype(float), factors, jax.random.key(0))[:3])
        1.000 ± 0.000 1.000 ± 0.000 1.000 ± 0.000
    """
    data, rng = opened(codes, factors, min_factors=2), generator(key)
    checks.positive_int(num_trees, "num_trees")
    right, importances = np.empty(data.factors.shape), []
    for train, test in folds(rng, len(data.codes), num_folds):
        columns = []
        for k, factor in enumerate(data.factors.T):
            forest = _forest(data.codes[train], factor[train], num_trees, int(rng.integers(2**31)))
            right[test, k] = forest.predict(data.codes[test]) == factor[test]
            columns.append(forest.feature_importances_)
        importances.append(np.stack(columns, axis=1))
    importance = np.mean(importances, axis=0)
    disentanglement, completeness = (_spread(kind, importance, importances) for kind in (_by_dimension, _by_factor))
    return Dci(disentanglement, completeness, mean_score(right, importance), importance)


class DisentanglementReport(NamedTuple):
    """All scores of one code; printing it gives two tables.

    Attributes:
        mig: `mig`.
        sap: `sap`.
        disentanglement: of `dci`.
        completeness: of `dci`.
        informativeness: of `dci`.
        modularity: `modularity`.
        beta_vae: `beta_vae_score`.
        factor_vae: `factor_vae_score`.
        factor_names: of the F factors.
        chance: what each score gives for codes that say nothing: 0, the share of the commonest class, or 1/F.
        num_examples: n.
        num_latents: D.
        num_constant: dimensions that never vary.
    """

    mig: FactorScore
    sap: FactorScore
    disentanglement: FactorScore
    completeness: FactorScore
    informativeness: FactorScore
    modularity: FactorScore
    beta_vae: FactorScore
    factor_vae: FactorScore
    factor_names: tuple[str, ...]
    chance: dict[str, float]
    num_examples: int
    num_latents: int
    num_constant: int

    def scores(self) -> dict[str, FactorScore]:
        """All of them by name."""
        return {name: getattr(self, name) for name in SCORE_MEANINGS}

    def as_dict(self) -> dict[str, Any]:
        """The same in plain numbers, strings, lists and dictionaries, for JSON."""
        plain = {
            name: {part: value if np.isscalar(value) else value.tolist() for part, value in score._asdict().items()}
            for name, score in self.scores().items()
        }
        facts = {name: getattr(self, name) for name in ("chance", "num_examples", "num_latents", "num_constant")}
        return {**plain, "factor_names": list(self.factor_names), **facts}

    def __str__(self) -> str:
        constant = f" ({self.num_constant} of them constant)" if self.num_constant else ""
        lines = [
            f"{self.num_latents} latent dimensions{constant}, {len(self.factor_names)} factors, {self.num_examples} examples",
            f"{'score':<15} {'value ± se':<13} chance what it is; 1 at best (sap: {1 - self.chance['informativeness']:.2g})",
        ]
        for name, score in self.scores().items():
            lines.append(f"{name:<15} {score!s:<13} {self.chance[name]:<6.2g} {SCORE_MEANINGS[name]}")
        width = max(map(len, (*self.factor_names, "factor")))
        names = [name for name in SCORE_MEANINGS if name not in _BY_DIMENSION]
        lines += ["", " ".join([f"{'factor':<{width}}", *(f"{name:<15}" for name in names)]).rstrip()]
        for k, factor in enumerate(self.factor_names):
            parts = [(getattr(self, name).parts[k], getattr(self, name).parts_standard_error[k]) for name in names]
            lines.append(" ".join([f"{factor:<{width}}", *(f"{v:.3f} ± {e:.3f}  " for v, e in parts)]).rstrip())
        return "\n".join(lines)


_BY_DIMENSION = ("disentanglement", "modularity")
#: What each score of a `DisentanglementReport` is, in a line.
SCORE_MEANINGS = {
    "mig": "information about a factor: its best dimension less the second best, over its entropy",
    "sap": "accuracy of telling a factor: from its best dimension less from the second best",
    "disentanglement": "each dimension matters for one factor only (importance in random forests)",
    "completeness": "each factor is in one dimension only (importance in random forests)",
    "informativeness": "accuracy of telling a factor from all dimensions (random forests)",
    "modularity": "each dimension has information about one factor only",
    "beta_vae": "accuracy of telling which factor pairs share, from mean absolute differences",
    "factor_vae": "accuracy of telling which factor examples share, from the dimension that varies least",
}


def disentanglement_report(
    codes: Any,
    factors: Any,
    key: Key,
    *,
    factor_names: Sequence[str] | None = None,
    num_bins: int = 20,
    test_fraction: float = 0.25,
    num_folds: int = 5,
    num_trees: int = 20,
    num_votes: int = 1000,
    num_pairs: int = 64,
    group_size: int = 64,
) -> DisentanglementReport:
    """Every score of codes beside known factors, each with its standard error.

    The errors: `mig` and `modularity` jackknife over examples; `sap` between held-out examples; informativeness between examples, each held
    out once; disentanglement and completeness jackknife over the folds; the two vote scores between folds of held-out examples.
    They speak of other examples from the same source, given the model: not of other models or seeds, which differ by more.

    Codes are taken as they are: a dimension that a decoder never uses may still say something by its mean. Leave such dimensions out
    beforehand. Pairs and groups with a value in common are drawn from the examples given, which may be any labelled data; all scores but
    informativeness take factors to be independent, and mix in what they say of each other where they are not.

    Args:
        codes: ``[n, D]`` real, such as ``model.posterior(params, x).mean()``.
        factors: ``[n, F]`` integer classes, F ≥ 2.
        key: typed key.
        factor_names: F names; None: numbers.
        num_bins: of `mig` and `modularity`.
        test_fraction: of `sap`.
        num_folds: of `dci` and the vote scores.
        num_trees: of `dci`.
        num_votes: of the vote scores.
        num_pairs: of `beta_vae_score`.
        group_size: of `factor_vae_score`.

    Returns:
        `DisentanglementReport`.

    Raises:
        TypeError: codes that are no real array, factors that are no integer array, a raw key, traced arrays.
        ValueError: shapes other than ``[n, D]`` and ``[n, F]``, NaN, fewer than two factors, a factor that never varies or of which no two
            examples share a value, too few examples for the folds, a name too few or too many.

    Source:
        The functions' own; Locatello et al. 2019 compare them.

    Examples:
        >>> factors = np.indices((4, 4, 5)).reshape(3, -1).T
        >>> report = disentanglement_report(factors.astype(float), factors, jax.random.key(0), num_votes=60)
        >>> print(report.mig, report.beta_vae, round(report.as_dict()["chance"]["beta_vae"], 3))
        1.000 ± 0.000 1.000 ± 0.000 0.333
    """
    checks.key(key)
    data = opened(codes, factors, min_factors=2)
    names = range(data.factors.shape[1]) if factor_names is None else factor_names
    if len(names) != data.factors.shape[1]:
        raise ValueError(
            f"factor_names holds {len(names)} names for {data.factors.shape[1]} factors; give one for each column of factors"
        )
    keys = jax.random.split(key, 4)
    votes: dict[str, int] = {"num_votes": num_votes, "num_folds": num_folds}
    commonest = np.mean([np.bincount(factor).max() / len(factor) for factor in data.factors.T])
    told = {"informativeness": float(commonest), **dict.fromkeys(("beta_vae", "factor_vae"), 1 / len(names))}
    dci_scores = dci(codes, factors, keys[1], num_folds=num_folds, num_trees=num_trees)
    return DisentanglementReport(
        mig(codes, factors, num_bins=num_bins),
        sap(codes, factors, keys[0], test_fraction=test_fraction),
        *dci_scores[:3],
        modularity(codes, factors, num_bins=num_bins),
        beta_vae_score(codes, factors, keys[2], num_pairs=num_pairs, **votes),
        factor_vae_score(codes, factors, keys[3], group_size=group_size, **votes),
        factor_names=tuple(map(str, names)),
        chance={**dict.fromkeys(SCORE_MEANINGS, 0.0), **told},
        num_examples=len(data.codes),
        num_latents=len(data.alive),
        num_constant=int(np.sum(~data.alive)),
    )


def _forest(codes: np.ndarray, factor: np.ndarray, num_trees: int, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    leaf = max(1, len(factor) // (10 * (factor.max() + 1)))
    # A pool of threads costs more than a small forest; the trees are the same either way.
    jobs = -1 if codes.size > 2**17 else None
    forest = RandomForestClassifier(num_trees, max_features=None, min_samples_leaf=leaf, random_state=seed, n_jobs=jobs)
    return forest.fit(codes, factor)


def _by_dimension(importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 − entropy over factors of each dimension, and the dimensions' weights."""
    weight = importance.sum(axis=1)
    return _one_sided(importance), weight / max(weight.sum(), _TINY)


def _by_factor(importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 − entropy over dimensions of each factor, and the factors' equal weights."""
    return _one_sided(importance.T), np.full(importance.shape[1], 1 / importance.shape[1])


def _one_sided(importance: np.ndarray) -> np.ndarray:
    """Of each row: 1 − its entropy to the base of its length; 0 for a row of zeros, 1 for a single entry that is none."""
    total = importance.sum(axis=1)
    entropy = entr(importance / np.maximum(total, _TINY)[:, None]).sum(axis=1) / max(np.log(importance.shape[1]), _TINY)
    return np.where(total > 0, np.maximum(1 - entropy, 0.0), 0.0)


def _spread(kind: Callable, importance: np.ndarray, without: list[np.ndarray]) -> FactorScore:
    parts, weights = kind(importance)
    each = [kind(fold) for fold in without]
    error, errors = jackknife(np.array([p @ w for p, w in each])), jackknife(np.array([p for p, _ in each]))
    return FactorScore(float(parts @ weights), float(error), parts, errors, importance)
