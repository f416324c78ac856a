"""Recipes that assemble a `Model` from the parts."""

from vaejax.models.sigmoid_belief import sigmoid_belief_network
from vaejax.models.units import in_own_units
from vaejax.models.vae import vae

__all__ = ["in_own_units", "sigmoid_belief_network", "vae"]
