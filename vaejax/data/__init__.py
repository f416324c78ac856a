"""Data: named datasets, one's own files, downloads, binarisation, standardisation."""

from vaejax.data.binarize import binarize, dynamic_binarization, unit_interval
from vaejax.data.catalogue import DatasetRow, catalogue, check
from vaejax.data.cells import MISSING
from vaejax.data.datasets import Dataset
from vaejax.data.describe import Summary, describe
from vaejax.data.download import fetch
from vaejax.data.errors import DataFileError, MissingDataError
from vaejax.data.loading import load, own_path
from vaejax.data.registry import default_directory
from vaejax.data.scaling import Scaling, log_scale_sum, standardize
from vaejax.data.sprites import Sprites, sprites

__all__ = [
    "MISSING",
    "DataFileError",
    "Dataset",
    "DatasetRow",
    "MissingDataError",
    "Scaling",
    "Sprites",
    "Summary",
    "binarize",
    "catalogue",
    "check",
    "default_directory",
    "describe",
    "dynamic_binarization",
    "fetch",
    "load",
    "log_scale_sum",
    "own_path",
    "sprites",
    "standardize",
    "unit_interval",
]
