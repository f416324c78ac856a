"""Data: named datasets and binarisation."""

from vaejax.data.binarize import binarize, dynamic_binarization
from vaejax.data.datasets import Dataset, load

__all__ = ["Dataset", "binarize", "dynamic_binarization", "load"]
