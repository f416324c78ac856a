"""Gradient estimators behind one interface."""

from vaejax.estimators.catalogue import CatalogueRow, catalogue
from vaejax.estimators.pathwise import pathwise

__all__ = ["CatalogueRow", "catalogue", "pathwise"]
