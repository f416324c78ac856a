"""Networks behind a pure (init, apply) pair."""

from vaejax.nets.conv import conv_decoder, conv_encoder
from vaejax.nets.mlp import mlp
from vaejax.nets.network import Network, from_equinox, from_linen, from_nnx

__all__ = ["Network", "conv_decoder", "conv_encoder", "from_equinox", "from_linen", "from_nnx", "mlp"]
