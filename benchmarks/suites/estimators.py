"""The certificates of the estimators for discrete latents: cost of a gradient, relative to enumeration, beside its bias and variance.

Bias (a share of the exact gradient), z and variance are those of the encoder's gradient, the largest z that of any part of the params.
An error names those whose promise is broken. ``python -m benchmarks certificates --help`` has the same with its own tables and options.
"""

from collections.abc import Iterator

from benchmarks import enumerable
from benchmarks.harness import OURS, Row
from benchmarks.options import Options
from benchmarks.studies import certificates as table

EXACT = "enumerate_latents"


def run(options: Options) -> Iterator[Row]:
    models = list(enumerable.BUILDERS)[:1] if options.quick else list(enumerable.BUILDERS)
    names = [EXACT, "disarm", "straight_through"] if options.quick else list(table.CASES)
    exact: dict[tuple[str, str], float] = {}
    broken = []
    for own in table.certificates(models, names, 2000 if options.quick else 20_000):
        micro, work = 1e6 * own["seconds"], f"{own['estimator']} on {own['model']}, {own['where']}"
        point = own["model"], own["where"]
        if own["estimator"] == EXACT:
            exact[point] = micro
        facts = {name: own[name]["encoder"] for name in ("bias", "z", "variance")} | {"largest z": table.worst(own)}
        kept = f"declared {'biased' if own['declared_biased'] else 'unbiased'}: {'kept' if own['kept'] else 'BROKEN'}"
        yield Row(work, "µs a gradient", {OURS: [micro], "enumeration": [exact[point]]}, {}, kept, facts)
        broken += [] if own["kept"] else [work]
    if broken:
        raise RuntimeError(f"broken promises: {'; '.join(broken)}")
