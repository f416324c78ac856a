"""The command line: ``vaejax train | evaluate | sample | plot | fit | data | estimators``. Thin: the work is in `vaejax.report`."""

import dataclasses
import functools
import importlib.util
import operator
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from vaejax.report import config as settings
from vaejax.report.fit_options import Fit
from vaejax.report.options import (
    Check,
    Data,
    Estimators,
    Evaluate,
    Fetch,
    List,
    Plot,
    Sample,
    Train,
    file_options,
    in_flags,
)

_GROUPS = ("data", "model", "objective", "optimizer", "training", "evaluation")
_DESCRIPTION = """Variational autoencoders in JAX. vaejax COMMAND --help explains each command.

Everywhere: --debug shows the trace of an error; --version the version."""


def _train(options: Train) -> int:
    from vaejax.report import job, new_run_directory, to_json

    if options.resume is not None:
        return _resume(options.resume, options)
    if not options.dataset:
        raise ValueError(
            f"no data named; name {', '.join(settings.PRESETS)} or a file, or use --config FILE or --resume RUN"
        )
    parts = {name: getattr(options, name) for name in _GROUPS}
    config = job.with_name(settings.RunConfig(**parts), options.dataset)
    planned = job.plan(config)
    if options.save_config is not None:
        options.save_config.write_text(to_json(config))
        print(f"settings written to {options.save_config}; vaejax train --config {options.save_config} uses them")
        return 0
    print(job.outline(planned))
    if options.dry_run:
        print(to_json(config), end="")
        return 0
    directory = new_run_directory(options.runs, Path(options.dataset).stem)
    print(f"into {directory}", flush=True)
    return _run(planned, directory, options, resume=False)


def _resume(directory: Path, options: Train) -> int:
    from vaejax.report import job, open_run

    plain = dataclasses.replace(
        _defaults(None, ""), resume=options.resume, progress=options.progress, figures=options.figures
    )
    if options != plain:
        raise ValueError(
            "--resume goes on with a run by its own settings and takes no others; for other settings begin a new run with "
            f"--config {directory / 'config.json'}"
        )
    run = open_run(directory)
    planned = job.plan(run.config)
    job.check_unchanged(planned.facts, run)
    print(f"resuming {directory}", flush=True)
    return _run(planned, directory, options, resume=True)


def _run(planned: Any, directory: Path, options: Train, *, resume: bool) -> int:
    from vaejax.report import job

    result = job.train(planned, directory, resume=resume, progress=_bar(options))
    if result.interrupted:
        print(f"stopped after epoch {len(result.history['epoch'])}; go on with: vaejax train --resume {directory}")
        return 128 + signal.Signals[result.stopped]
    print(job.finish(planned, directory, result, progress=_bar(options)), flush=True)
    if options.figures:
        print(job.draw(planned, directory, result))
    else:
        print(
            f"settings, history.csv, checkpoints and summary.json\nare in {directory}; figures: vaejax plot {directory}"
        )
    return 0


def _bar(options: Any) -> bool | None:
    return None if options.progress else False


def _evaluate(options: Evaluate) -> int:
    from vaejax.report import full, revisit

    chosen: dict[str, Any] = {name: getattr(options, name) for name in ("split", "samples", "use", "seed")}
    if options.report:
        chosen |= {"examples": options.examples, "temperatures": options.temperatures}
        try:
            print(full.report_run(options.run, **chosen, progress=_bar(options)))
        except KeyboardInterrupt:
            print(
                f"what took long is kept in {options.run / 'evidence'}; the same command goes on there", file=sys.stderr
            )
            raise
        return 0
    if (options.examples, options.temperatures) != (Evaluate.examples, Evaluate.temperatures):
        raise ValueError("--examples and --temperatures are for --report; add it, or leave them out")
    print(revisit.evaluate_run(options.run, **chosen, progress=_bar(options)))
    return 0


def _sample(options: Sample) -> int:
    from vaejax.report import revisit

    chosen = {name: getattr(options, name) for name in ("out", "count", "label", "use", "seed")}
    print("written:", *revisit.sample_run(options.run, **chosen, ancestral=not options.means), sep="\n  ")
    return 0


def _plot(options: Plot) -> int:
    from vaejax.report import revisit

    chosen = {name: getattr(options, name) for name in ("out", "use", "seed")}
    written = revisit.plot_run(options.run, **chosen, only=options.only or None, kind=options.format)
    print("written:", *written, sep="\n  ")
    return 0


def _fit(options: Fit) -> int:
    from vaejax.report import exact

    planned = exact.plan(options.model)
    print(exact.outline(planned), flush=True)
    print(exact.run(planned))
    return 0


def _data(options: Data) -> int:
    from vaejax import data
    from vaejax.report.narrow import narrowed

    match options.action:
        case List(directory):
            for row in data.catalogue(directory):
                where = "installed" if row.path is None else row.path
                hint = f"; get it with: vaejax data fetch {row.name}" if row.fetchable and not row.found else ""
                print(
                    f"{row.name}: {row.shape}\n  {'found' if row.found else 'not found'}: {where}{hint}\n  {row.source}; {row.licence}"
                )
        case Fetch(name, directory):
            for path in data.fetch(name, directory, progress=_bar(options.action)):
                print(path)
        case Check() as check:
            is_file = data.own_path(check.dataset) is not None
            reading = file_options(check) | ({"dtype": "float64"} if is_file else {})
            print(data.describe(narrowed(data.load(check.dataset, check.directory, **reading), shift=False)[0]))
    return 0


def _estimators(options: Estimators) -> int:
    from vaejax import estimators

    for row in estimators.catalogue():
        draws = "K > 1" if row.needs_many_samples else "any K"
        print(f"{row.name}\n  latents: {row.latents}; {draws}\n  unbiased: {row.unbiased}; {row.source}")
        if row.evaluations != "0":
            print(f"  model evaluations a draw, beside the one at the draw: {row.evaluations}")
    print(
        "\nD latents, n categories, L layers. Which one: docs/estimators.md; measured: python -m benchmarks estimators"
    )
    return 0


_HANDLERS: dict[type, Callable[[Any], int]] = {
    Train: _train,
    Evaluate: _evaluate,
    Sample: _sample,
    Plot: _plot,
    Fit: _fit,
    Data: _data,
    Estimators: _estimators,
}


def _defaults(config_file: Path | None, dataset: str) -> Train:
    """Where the options of a training start: the settings of ``--config``, or those that suit the data named."""
    config = settings.preset(dataset) if config_file is None else settings.from_json(config_file, dataset or None)
    return Train(dataset=config.name, **{name: getattr(config, name) for name in _GROUPS})


def _parse(arguments: list[str]) -> Any:
    """The options, twice: what the first reading names as data and settings gives the second its defaults."""
    if arguments[:1] != ["train"]:
        return _read(arguments, _defaults(None, ""))
    # A reading for help ends there: the data must then stand first.
    named = arguments[1] if len(arguments) > 1 and not arguments[1].startswith("-") else ""
    first = _read(arguments, _defaults(None, named))
    return _read(arguments, _defaults(first.config, first.dataset))


def _read(arguments: list[str], default: Train) -> Any:
    import tyro

    names = {kind: tyro.conf.subcommand(kind.__name__.lower()) for kind in _HANDLERS}
    names[Train] = tyro.conf.subcommand("train", default=default)
    union: Any = functools.reduce(operator.or_, (Annotated[kind, name] for kind, name in names.items()))
    configuration = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)
    return tyro.cli(union, prog="vaejax", description=_DESCRIPTION, config=configuration, args=arguments)


def main() -> None:
    """The ``vaejax`` command; exits with 0, 1 for bad input, 2 for bad usage, 130 after Ctrl-C, 143 after SIGTERM."""
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if arguments == ["--version"]:
        import vaejax

        print(f"vaejax {vaejax.__version__}")
        sys.exit(0)
    if importlib.util.find_spec("tyro") is None or importlib.util.find_spec("matplotlib") is None:
        sys.exit("the command line needs tyro and matplotlib: pip install 'vaejax[cli]'")
    command = arguments[0] if arguments else ""
    warnings.showwarning = lambda message, *_, **__: print(
        f"warning: {in_flags(str(message), command)}", file=sys.stderr
    )
    try:
        options = _parse(arguments)
        code = _HANDLERS[type(options)](options)
    except KeyboardInterrupt:
        print("vaejax: stopped", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: a program still running on JAX's threads would crash while Python tears itself down.
        os._exit(130)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if debug:
            traceback.print_exc()
        known = isinstance(error, ValueError | TypeError | OSError | FloatingPointError)
        told = in_flags(str(error), command)
        sys.exit(f"vaejax: {told}" if known else f"vaejax: {type(error).__name__}: {told} (--debug shows the trace)")
    sys.exit(code)


if __name__ == "__main__":
    main()
