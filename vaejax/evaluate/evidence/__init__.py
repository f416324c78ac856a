"""How good the density is: bounds of log p(x), and how far to trust them."""
