"""What the latents do, and whether the encoder tells the truth about them."""
