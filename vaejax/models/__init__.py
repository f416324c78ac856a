"""Recipes that assemble a `Model` from the parts."""

from vaejax.models.vae import vae

__all__ = ["vae"]
