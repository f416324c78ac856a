"""Certificates of the estimators for discrete latents: bias, variance and cost where the gradient is known by enumeration.

    python -m benchmarks estimators [--draws 20000] [--out DIR]

Four small models (benchmarks/enumerable.py), each at two points, in float64. Times are of one compiled gradient on a batch of two,
mostly dispatch: what a large model would cost shows in the number of evaluations (`vaejax.estimators.catalogue()`).
"""

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import jax

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
UPDATES = 300


def certificate(constructor: Any, made: enumerable.Enumerable, where: str, draws: int) -> estimators.Certificate:
    """At these params; stateful estimators after 300 updates there."""
    params, key = made.points[where], jax.random.key(0)
    estimator = constructor(made.model, elbo)
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
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=None, help="also write certificates.md and certificates.json here")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    lines, found = [], []
    for model, build in enumerable.BUILDERS.items():
        made = build()
        # Each estimator is a program or two: those of the model before are let go.
        jax.clear_caches()
        for where in made.points:
            lines += [f"\n{model}, {where}; the encoder's gradient:\n"]
            lines += [
                "| estimator | bias | z | variance | signal to noise | µs | variance × µs |",
                "|---|---|---|---|---|---|---|",
            ]
            print("\n".join(lines[-3:]), flush=True)
            for name, (constructor, kinds) in CASES.items():
                if not enumerable.KINDS[model] <= kinds:
                    continue
                result = certificate(constructor, made, where, options.draws)
                found.append({"model": model, "where": where, "estimator": name, **result._asdict()})
                of = {key: value["encoder"] for key, value in result._asdict().items() if isinstance(value, dict)}
                micro = 1e6 * result.seconds
                lines.append(
                    f"| {name} | {of['bias']:.3f} | {of['z']:.1f} | {of['variance']:.3g} | {of['signal_to_noise']:.3g} | {micro:.0f} | "
                    f"{micro * of['variance']:.3g} |"
                )
                print(lines[-1], flush=True)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "certificates.md").write_text("\n".join(lines).lstrip() + "\n")
        (options.out / "certificates.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
