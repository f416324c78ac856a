"""The certificates of the estimators for discrete latents: cost of a gradient, relative to enumeration, beside its bias and variance.

An error names those whose promise is broken. ``python -m benchmarks certificates --help`` has the same with its own tables and options.
"""

from collections.abc import Iterator

import jax

from benchmarks import enumerable
from benchmarks.harness import OURS, Row
from benchmarks.options import Options
from benchmarks.studies import certificates as table

EXACT = "enumeration"


def run(options: Options) -> Iterator[Row]:
    models = list(enumerable.BUILDERS)[:1] if options.quick else list(enumerable.BUILDERS)
    names = ["enumerate_latents", "disarm", "straight_through"] if options.quick else list(table.CASES)
    with jax.enable_x64(True):
        _, found = table.certificates(models, names, 2000 if options.quick else 20_000, quiet=True)
    exact = {(own["model"], own["where"]): own for own in found if own["estimator"] == "enumerate_latents"}
    for own in found:
        declared = "biased" if own["declared_biased"] else "unbiased"
        encoder = {name: own[name]["encoder"] for name in ("bias", "variance", "signal_to_noise")}
        note = (
            f"declared {declared}, z = {table.worst(own):.1f}: {'kept' if own['kept'] else 'BROKEN'}; of the encoder: "
        )
        note += ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in encoder.items())
        reference = exact[own["model"], own["where"]]
        figures = {OURS: [1e6 * own["seconds"]], EXACT: [1e6 * reference["seconds"]]}
        yield Row(f"{own['estimator']} on {own['model']}, {own['where']}", "µs a gradient", figures, {}, note)
    if broken := [f"{own['estimator']} on {own['model']}, {own['where']}" for own in found if not own["kept"]]:
        raise RuntimeError(f"broken promises: {'; '.join(broken)}")
