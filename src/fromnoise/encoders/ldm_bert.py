"""The text encoder of the first latent diffusion: a transformer over BERT's pieces of words."""

import torch
from torch import Tensor, nn

from fromnoise.core.errors import UsageError
from fromnoise.encoders import prompted
from fromnoise.encoders.base import ENCODERS
from fromnoise.encoders.prompts import weighted
from fromnoise.encoders.reading import Reading
from fromnoise.encoders.tokenizers import from_bytes, to_bytes
from fromnoise.encoders.wordpieces import WordPieces, WordPieceTokenizer
from fromnoise.layers.transformer import Tower

_STD = 0.02


@ENCODERS.register("ldm_bert")
class LDMBert(Reading):
    """A prompt as the last states of a transformer, (B, length·chunks, width).

    norm(blocks(embedding(ids) + position)), every token seeing every other, padding too, as it was
    trained. Prompts, their weights and the null are those of `Reading`. It was trained with its
    U-Net, not before it; only the vocabulary is BERT's.

    vocabulary: ids it embeds. heads: each head_width wide, whatever the width. hidden: middle of
    the MLPs. frozen: whether its weights are kept from training. logits: whether it holds the map
    to logits of published files, which nothing reads, for them to be written whole. The defaults
    are those of the large model; the small one has width 640, heads 8 and hidden 2560.
    The pieces of words are data, not configuration: `set_vocabulary`.
    Raises UsageError for prompts of less than three tokens.
    Reference: Rombach et al. 2022, appendix E.2.2.
    """

    def __init__(
        self,
        vocabulary: int = 30_522,
        length: int = 77,
        width: int = 1280,
        depth: int = 32,
        heads: int = 8,
        head_width: int = 64,
        hidden: int = 5120,
        frozen: bool = True,
        logits: bool = False,
    ) -> None:
        super().__init__()
        if length < 3:
            raise UsageError(f"prompts of {length} tokens leave no room for words; use 3 or more")
        self.length, self.width = length, width
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.embedding.weight, std=_STD)
        nn.init.normal_(self.position, std=_STD)
        self.tower = Tower(width, depth, heads, hidden, head_width=head_width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, vocabulary) if logits else None
        self.requires_grad_(not frozen)

    def set_vocabulary(self, vocabulary: WordPieces) -> "LDMBert":
        """Read prompts with this vocabulary from now on; returns itself.

        Raises UsageError for one with more ids than the encoder embeds, FileError for one that
        does not hold together.
        """
        WordPieceTokenizer(vocabulary)
        rows = self.embedding.num_embeddings
        return self.read_with(to_bytes(vocabulary), vocabulary.size, rows)

    def reader(self, data: bytes) -> WordPieceTokenizer:
        return WordPieceTokenizer(from_bytes(WordPieces, data))

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, length) → states (B, length, width)."""
        states: Tensor = self.norm(self.tower(self.embedding(ids) + self.position))
        return states

    def run(self, rows: prompted.Rows) -> prompted.Told:
        device = self.position.device
        return prompted.Told(weighted(self(rows.ids.to(device)), rows.weights))
