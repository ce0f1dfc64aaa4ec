"""The names inside the transformers of a U-Net, the same in diffusers and in latent diffusion."""

from fromnoise.layers.spatial_transformer import SpatialTransformer

_AROUND = (("norm", "norm"), ("enter", "proj_in"), ("leave", "proj_out"))
_ATTENTION = (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("out", "to_out.0"))
_BLOCK = (
    *((norm, norm) for norm in ("norm1", "norm2", "norm3")),
    *((f"own.{a}", f"attn1.{b}") for a, b in _ATTENTION),
    *((f"cross.{a}", f"attn2.{b}") for a, b in _ATTENTION),
    ("feed.first", "ff.net.0.proj"),
    ("feed.second", "ff.net.2"),
)


def parts(layer: SpatialTransformer, ours: str, theirs: str) -> list[tuple[str, str]]:
    """Our and their names of the layers of one transformer, which stands at these two places."""
    named = [(f"{ours}.{a}", f"{theirs}.{b}") for a, b in _AROUND]
    for i in range(len(layer.blocks)):
        here, there = f"{ours}.blocks.{i}", f"{theirs}.transformer_blocks.{i}"
        named += [(f"{here}.{a}", f"{there}.{b}") for a, b in _BLOCK]
    return named
