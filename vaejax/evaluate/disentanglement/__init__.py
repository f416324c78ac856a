"""How known factors of the data are laid out in a code."""
