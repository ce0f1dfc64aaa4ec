"""Building blocks that networks, codecs, encoders and data share; they know no diffusion."""
