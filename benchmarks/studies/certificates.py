"""Certificates of the estimators for discrete latents: bias, variance and cost where the gradient is known by enumeration.

    python -m benchmarks certificates [--draws 20000] [--models …] [--rows …] [--out DIR]

Five small models (benchmarks/enumerable.py), each at two points, in float64. Times are of one compiled gradient on a batch of two,
mostly dispatch: what a large model would cost shows in the number of evaluations (`vaejax.estimators.catalogue()`).
"""

import argparse
import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import enumerable
from vaejax import estimators
from vaejax.estimators import baselines
from vaejax.objectives import elbo

# name -> (constructor, kinds of latents)
_ALL = {"bernoulli", "categorical", "chain", "continuous"}
_LOO = baselines.leave_one_out()
CASES: dict[str, tuple[Any, set[str]]] = {
    "enumerate_latents": (estimators.enumerate_latents, _ALL),
    "score_function": (estimators.score_function, _ALL),
    "score_function, leave one out, K=2": (
        functools.partial(estimators.score_function, num_samples=2, baseline=_LOO),
        _ALL,
    ),
    "… with local signals": (
        functools.partial(estimators.score_function, num_samples=2, baseline=_LOO, rao_blackwell=True),
        _ALL,
    ),
    "nvil": (estimators.nvil, _ALL),
    # On the ELBO, whose gradient is known here, it is leave-one-out by another route.
    "vimco, K=2": (estimators.vimco, _ALL),
    "muprop": (estimators.muprop, _ALL),
    "rebar": (estimators.rebar, _ALL),
    "relax": (estimators.relax, _ALL),
    "arm": (estimators.arm, {"bernoulli", "chain"}),
    "disarm": (estimators.disarm, {"bernoulli", "chain"}),
    "arsm": (estimators.arsm, {"categorical", "chain", "continuous"}),
    "measure_valued": (estimators.measure_valued, _ALL),
    "unordered_set, K=2": (estimators.unordered_set, {"bernoulli", "categorical"}),
    "concrete, T=0.5": (estimators.concrete, _ALL),
    "straight_through": (estimators.straight_through, _ALL),
    "gumbel_straight_through": (estimators.gumbel_straight_through, _ALL),
}
# What the catalogue declares, by the constructor behind each row.
_DECLARED = {row.constructor: row.unbiased == "no" for row in estimators.catalogue()}
BIASED = {name for name, (made, _) in CASES.items() if _DECLARED[getattr(made, "func", made)]}
UPDATES = 300


def certificate(constructor: Any, made: enumerable.Enumerable, where: str, draws: int) -> estimators.Certificate:
    """At these params; stateful estimators after 300 updates there."""
    params, key = made.points[where], jax.random.key(0)
    estimator = enumerable.unscaled(constructor(made.model, elbo))
    state = jax.tree.map(
        lambda a: a.astype(float) if a.dtype == "float32" else a, estimator.init(params, key, enumerable.X)
    )
    keys = jax.random.split(jax.random.key(1), UPDATES)
    if jax.tree.leaves(state):
        step = jax.jit(
            lambda s: jax.lax.scan(lambda s, k: (estimator.estimate(params, s, k, enumerable.X)[1], None), s, keys)
        )
        state = step(state)[0]
    return estimators.certify(
        estimator, enumerable.exact_gradient(made, where), params, key, enumerable.X, num_draws=draws, state=state
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20_000, help="gradients at each point (default %(default)s)")
    parser.add_argument("--models", nargs="+", choices=list(enumerable.BUILDERS), default=list(enumerable.BUILDERS))
    parser.add_argument("--rows", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, default=None, help="also write certificates.md and certificates.json here")
    options = parser.parse_args()
    lines: list[str] = []
    found: list[dict[str, Any]] = []
    for own in certificates(options.models, options.rows, options.draws):
        new = not found or any(own[name] != found[-1][name] for name in ("model", "where"))
        found.append(own)
        said = [*(_head(own) if new else []), _line(own)]
        print("\n".join(said), flush=True)
        lines += said
    broken = [
        f"{own['estimator']} on {own['model']}, {own['where']}: z = {worst(own):.1f}"
        for own in found
        if not own["kept"]
    ]
    verdict = f"broken promises: {'; '.join(broken)}" if broken else "bias where it is declared, and nowhere else"
    lines.append(f"\n{len(found)} certificates, z the largest over all parts of the params: {verdict}.")
    print(lines[-1])
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "certificates.md").write_text("\n".join(lines).lstrip() + "\n")
        (options.out / "certificates.json").write_text(json.dumps(found, indent=1))
    if broken:
        raise SystemExit(1)


def worst(own: dict[str, Any]) -> float:
    """The largest z of a certificate; NaN where one is no number."""
    return float(np.max(list(own["z"].values())))


def certificates(models: list[str], rows: list[str], draws: int) -> Iterator[dict[str, Any]]:
    """The certificates in turn, in float64: what `estimators.certify` finds, of whom, and whether the promise was kept."""
    for model in models:
        with jax.enable_x64(True):
            made = enumerable.BUILDERS[model]()
        # Each estimator is a program or two: those of the model before are let go.
        jax.clear_caches()
        for where in made.points:
            for name in rows:
                constructor, kinds = CASES[name]
                if not enumerable.KINDS[model] <= kinds:
                    continue
                with jax.enable_x64(True):
                    result = certificate(constructor, made, where, draws)
                own = {"model": model, "where": where, "estimator": name, "declared_biased": name in BIASED}
                own |= result._asdict()
                # What is not finite keeps no promise, not even that of a bias.
                kept = math.isfinite(worst(own)) and result.biased() == (name in BIASED)
                yield {**own, "kept": kept}


def _head(own: dict[str, Any]) -> list[str]:
    return [
        f"\n{own['model']}, {own['where']}; the encoder's gradient:\n",
        "| estimator | bias | z | variance | signal to noise | µs | variance × µs |",
        "|---|---|---|---|---|---|---|",
    ]


def _line(own: dict[str, Any]) -> str:
    bias, z, variance, signal = (own[name]["encoder"] for name in ("bias", "z", "variance", "signal_to_noise"))
    micro = 1e6 * own["seconds"]
    return (
        f"| {own['estimator']} | {bias:.3f} | {z:.1f} | {variance:.3g} | {signal:.3g} | {micro:.0f} | "
        f"{micro * variance:.3g} |"
    )


if __name__ == "__main__":
    main()
