"""The options of ``vaejax fit``, one dataclass a model; field docstrings are the command line's help."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from vaejax.report.options import Positional, arg, subcommand


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """The table that is fitted."""

    labels: str | None = None
    """Own files: the column (CSV) or array (npz) that holds labels: left out of the fit, compared with it afterwards."""
    without: tuple[str, ...] = ()
    """Other columns to leave out, by name (x_0, x_1, … where they have none)."""
    standardize: bool = False
    """Fit columns brought to mean 0 and sd 1; log-likelihoods stay in the data's units."""
    array: str | None = None
    """Own npz files: the array to fit, where there are several."""
    delimiter: str | None = None
    """Own tables: what separates the cells; found out if not given."""
    missing: tuple[str, ...] = ()
    """Own tables: more words that stand for a missing cell (besides empty, NA, NaN, ?, ., null, None)."""
    header: bool = False
    """Own tables: the first row holds names, even where it may be an example."""
    no_header: bool = False
    """Own tables: the first row is an example; columns are named x_0, x_1, …"""
    numeric_labels: bool = False
    """Own files: labels of text are the numbers that they spell, so that 1, 01 and 1.0 are one class."""
    split: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Own files: fractions of the rows that train, validate and test; 1 0 0 fits all (of an npz with parts, those of train)."""
    split_seed: int = 0
    """Own files: seed of the split."""
    data_dir: Annotated[Path | None, arg(metavar="DIR")] = None
    """Where named datasets are; without it VAEJAX_DATA, then ~/.cache/vaejax."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gmm:
    """Gaussian mixture, by EM from several starts: which rows belong together, and how likely each row is.

    Of several numbers of components the one with the smallest BIC is kept. Rows must be complete.
    """

    dataset: Annotated[Positional[str], arg(metavar="DATA")]
    """A file of your own (.csv, .tsv, .npy, .npz: one example a row), or digits, mnist, fashion_mnist, mnist_static, frey, sprites."""
    components: Annotated[tuple[int, ...], arg(metavar="K...")] = ()
    """How many components, one number or several; 1 to 5 if not given."""
    covariance: Literal["full", "tied", "diag", "spherical", "equal_shape"] = "full"
    """Of the components: free, one for all, axis-aligned, round, or free but for one shape (the ratios of the axes)."""
    starts: int = 10
    """Of EM, for each number of components; the best is kept."""
    prior_count: float = 0.0
    """Pseudo-observations in each component; 1 keeps components from collapsing on few rows."""
    tolerance: float = 1e-6
    """Relative gain of a step below which EM ends."""
    max_steps: int = 200
    """Steps of EM, at most."""
    seed: int = 0
    """Of the starts."""
    runs: Annotated[Path, arg(metavar="DIR")] = Path("runs")
    """Directory in which the fit's own directory is made."""
    figures: bool = True
    """Draw no figures."""
    table: Table = Table()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ppca:
    """Probabilistic PCA, x = W z + μ + σ ε: in closed form, or by EM where cells are missing.

    Of several numbers of latent dimensions the one with the smallest BIC is kept.
    """

    dataset: Annotated[Positional[str], arg(metavar="DATA")]
    """A file of your own (.csv, .tsv, .npy, .npz: one example a row), or digits, mnist, fashion_mnist, mnist_static, frey, sprites."""
    latents: Annotated[tuple[int, ...], arg(metavar="Q...")] = ()
    """How many latent dimensions (factors), one number or several; 1 to 5, as far as columns and rows allow, if not given."""
    tolerance: float = 1e-9
    """Relative gain of a step below which EM ends."""
    max_steps: int = 10_000
    """Steps of EM, at most."""
    seed: int = 0
    """Of the starts."""
    runs: Annotated[Path, arg(metavar="DIR")] = Path("runs")
    """Directory in which the fit's own directory is made."""
    figures: bool = True
    """Draw no figures."""
    table: Table = Table()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fa(Ppca):
    """Factor analysis, x = W z + μ + ε with a noise variance for each column: by EM; cells may be missing.

    Of several numbers of factors the one with the smallest BIC is kept.
    """

    starts: int = 5
    """Of EM, for each number of factors; the best is kept."""
    rotation: Literal["varimax", "none"] = "varimax"
    """Of two factors or more: varimax (with Kaiser's normalisation), or the principal axes of Wᵀ Ψ⁻¹ W. The likelihood is the same."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """Fits a model whose evidence is exact: a Gaussian mixture, probabilistic PCA or factor analysis.

    Prints the log-likelihood on training and held-out rows; parameters, a line for each row, figures and a summary go to a run directory.
    """

    model: (
        Annotated[Gmm, subcommand("gmm", prefix_name=False)]
        | Annotated[Ppca, subcommand("ppca", prefix_name=False)]
        | Annotated[Fa, subcommand("fa", prefix_name=False)]
    )
