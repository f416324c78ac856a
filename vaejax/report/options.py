"""The options of the command line, one dataclass a command; field docstrings are its help."""

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vaejax.data import MISSING
from vaejax.report import config as settings

if TYPE_CHECKING:
    from tyro.conf import Positional, arg, subcommand
else:
    # tyro is an extra: without it the module still imports, and main says what to install.
    try:
        from tyro.conf import Positional, arg, subcommand
    except ImportError:
        Positional = list

        def arg(**_: Any) -> None:
            """Stands in for tyro's."""

        subcommand = arg


# Arguments of the library that messages name, and what the command line calls them.
_FLAGS = {
    "labels": "labels", "missing": "missing", "delimiter": "delimiter", "without": "without", "key": "array", "split": "split",
    "seed": "split-seed", "directory": "data-dir", "prior_count": "prior-count", "covariance": "covariance",
}  # fmt: skip
# Of vaejax data, which knows no split.
_OF_DATA = {"directory": "directory", "split": None, "seed": None}
# Arguments that are true or false, and the flag of each value.
_SWITCHES = {"header=False": "--no-header", "header=True": "--header", "numeric_labels=True": "--numeric-labels"}
_VALUE = r"""\([\d., ]*\)|'[^']*'|"[^"]*"|(?<=prior_count=)\d+"""


def in_flags(text: str, command: str = "") -> str:
    """A message of the library, its arguments called by the names of the command line.

    Only what stands free, ``name=`` or ``name='value'``, is taken for an argument: paths and cells may hold the same letters.

    Args:
        text: the message.
        command: the first word of the command line.

    Examples:
        >>> in_flags("name a column of text as labels=, or leave it out (without=)")
        'name a column of text as --labels, or leave it out (--without)'
        >>> in_flags("split=(0.7, 0.1, 0.2) of 4 rows; take covariance='diag'")
        '--split 0.7 0.1 0.2 of 4 rows; take --covariance diag'
        >>> in_flags("header=False reads it as an example")
        '--no-header reads it as an example'
        >>> in_flags("there is no file split=1/x.csv")
        'there is no file split=1/x.csv'
    """
    names = {name: flag for name, flag in (_FLAGS | (_OF_DATA if command == "data" else {})).items() if flag}

    def flag(found: re.Match) -> str:
        value = found["value"] or ""
        if value.startswith("("):
            value = value.strip("()").replace(",", "")
        elif re.fullmatch(r"(['\"])[\w.-]+\1", value):
            value = value[1:-1]
        return f"--{names[found['name']]}{' ' * bool(value)}{value}"

    for switch, written in _SWITCHES.items():
        text = re.sub(rf"(?<![^\s(])(?<!\.\.\., ){switch}(?=[\s,;:.)]|$)", written, text)
    # Not the keywords of a call that a message spells out.
    return re.sub(
        rf"(?<![^\s(])(?<!\.\.\., )(?P<name>{'|'.join(names)})=(?P<value>{_VALUE})?(?=[\s,;:.)]|$)", flag, text
    )


def file_options(options: Any) -> dict[str, Any]:
    """The arguments of `vaejax.data.load` that the settings of a command give for a file, without those at their defaults.

    Args:
        options: an object with the fields labels, array, delimiter, missing, without, header, no_header and numeric_labels.

    Raises:
        ValueError: both --header and --no-header.
    """
    if options.header and options.no_header:
        raise ValueError("--header and --no-header exclude each other, got both; leave one out")
    header = True if options.header else False if options.no_header else None
    arguments = {
        "labels": options.labels,
        "key": options.array,
        "delimiter": options.delimiter,
        "missing": (*MISSING, *options.missing) if options.missing else None,
        "without": options.without or None,
        "header": header,
        "numeric_labels": options.numeric_labels or None,
    }
    return {name: value for name, value in arguments.items() if value is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Trains a VAE and prints its test log-likelihood; settings, history, checkpoints, figures and a summary go to a run directory.

    The defaults shown are those of the dataset named: vaejax train mnist --help shows MNIST's.
    """

    dataset: Annotated[Positional[str], arg(metavar="DATA")] = ""
    """digits, mnist, fashion_mnist, mnist_static, frey, sprites, or a file of your own: .csv, .tsv, .npy, .npz."""
    config: Annotated[Path | None, arg(metavar="FILE")] = None
    """Start from the settings in a JSON file, such as another run's config.json; options given here win."""
    resume: Annotated[Path | None, arg(metavar="RUN")] = None
    """Go on with an interrupted run, by its own settings; takes no other options."""
    dry_run: bool = False
    """Check everything and print what would be done, settings included; write nothing."""
    save_config: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the settings to this file and stop."""
    runs: Annotated[Path, arg(metavar="DIR")] = Path("runs")
    """Directory in which the run's own directory is made."""
    progress: bool = True
    """Hide the progress bars, which appear on a terminal only."""
    figures: bool = True
    """Draw no figures at the end; vaejax plot RUN draws them when they are wanted."""
    data: settings.Data
    model: settings.Model
    objective: settings.Objective
    optimizer: settings.Optimizer
    training: settings.Training
    evaluation: settings.Evaluation


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluates a run's ELBO and log-likelihood again, with other random numbers, more samples, or on another part of the data.

    --report adds everything else that can be told of the model, as one HTML page and as JSON.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run directory."""
    samples: int = 1000
    """Importance samples per example."""
    split: Literal["test", "validation", "train"] | None = None
    """Part of the data; test if not given, without test rows validation, without these train."""
    use: Literal["best", "last"] | None = None
    """Which parameters; those of the run's settings if not given."""
    seed: int = 1
    """Of the random numbers."""
    report: bool = False
    """Write RUN/report.html and RUN/report.json: bounds of the evidence from every side, latents, calibration, samples."""
    examples: int = 100
    """With --report: how many examples get annealed importance sampling."""
    temperatures: int = 1000
    """With --report: of annealed importance sampling; 10000 are those of Wu et al. 2017, for a GPU."""
    progress: bool = True
    """Hide the progress bar, which appears on a terminal only."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draws new examples x ~ p(x|z), z ~ p(z), from a run's model: a .npz with x and z, a .csv for a table, a .png for images."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run directory."""
    count: int = 50
    """How many examples."""
    means: bool = False
    """The means of p(x|z) in place of draws."""
    label: str | None = None
    """Class to draw, for a run trained with --conditional; all in turn if not given."""
    use: Literal["best", "last"] | None = None
    """Which parameters; those of the run's settings if not given."""
    seed: int = 0
    """Of the random numbers."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """File to write; its endings are added; RUN/samples if not given."""


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draws a run's figures again."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run directory."""
    only: tuple[str, ...] = ()
    """Names of figures; all that suit the run if not given."""
    use: Literal["best", "last"] | None = None
    """Which parameters; those of the run's settings if not given."""
    seed: int = 0
    """Of the random numbers."""
    format: Literal["png", "pdf", "svg"] = "png"
    """Kind of file."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Directory to write to; RUN/figures if not given."""


@dataclasses.dataclass(frozen=True)
class List:
    """Lists the named datasets, and which are on this machine."""

    directory: Annotated[Path | None, arg(metavar="DIR")] = None
    """Where to look; without it VAEJAX_DATA, then ~/.cache/vaejax."""


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Downloads a named dataset; compares it with published checksums; an interrupted download goes on where it was."""

    dataset: Annotated[Positional[str], arg(metavar="DATA")]
    """mnist, fashion_mnist or mnist_static."""
    directory: Annotated[Path | None, arg(metavar="DIR")] = None
    """Where to put it; without it VAEJAX_DATA, then ~/.cache/vaejax."""
    progress: bool = True
    """Hide the progress bar, which appears on a terminal only."""


@dataclasses.dataclass(frozen=True)
class Check:
    """Reads a dataset, or a file of your own, and says what is in it, or what is wrong with it."""

    dataset: Annotated[Positional[str], arg(metavar="DATA")]
    """Name or file."""
    labels: str | None = None
    """Own files: the column (CSV) or array (npz) that holds labels."""
    array: str | None = None
    """Own npz files: the array to read, where there are several."""
    delimiter: str | None = None
    """Own tables: what separates the cells; found out if not given."""
    missing: tuple[str, ...] = ()
    """Own tables: more words that stand for a missing cell."""
    without: tuple[str, ...] = ()
    """Own tables: columns to leave out, by name (x_0, x_1, … where they have none)."""
    header: bool = False
    """Own tables: the first row holds names, even where it may be an example."""
    no_header: bool = False
    """Own tables: the first row is an example; columns are named x_0, x_1, …"""
    numeric_labels: bool = False
    """Own files: labels of text are the numbers that they spell, so that 1, 01 and 1.0 are one class."""
    directory: Annotated[Path | None, arg(metavar="DIR")] = None
    """Where named datasets are; without it VAEJAX_DATA, then ~/.cache/vaejax."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Lists, downloads and checks datasets."""

    action: (
        Annotated[List, subcommand("list", prefix_name=False)]
        | Annotated[Fetch, subcommand("fetch", prefix_name=False)]
        | Annotated[Check, subcommand("check", prefix_name=False)]
    )


@dataclasses.dataclass(frozen=True)
class Estimators:
    """Lists the gradient estimators: the latents they serve, whether they are unbiased, their source."""
