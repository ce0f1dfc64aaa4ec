"""CLIP's text tower as an encoder: prompts as tokens to attend to, with weights and any length."""

from collections.abc import Sequence

from torch import Tensor, nn

from fromnoise.core.errors import UsageError
from fromnoise.encoders import prompted
from fromnoise.encoders.base import ENCODERS
from fromnoise.encoders.clip_towers import TextSettings, TextTower, text_settings
from fromnoise.encoders.prompts import Chunk, framed, weighted
from fromnoise.encoders.reading import Reading
from fromnoise.encoders.tokenizers import Tokenizer, Vocabulary, from_bytes, to_bytes


@ENCODERS.register("clip")
class CLIPText(Reading):
    """A prompt as the states of a CLIP text tower, (B, 77·chunks, width).

    A prompt is cut into chunks of 75 tokens, each between the start and the end of a text and
    filled up; the chunks are encoded apart and their tokens follow each other. Weights scale the
    states (`fromnoise.encoders.prompts`). Padding is seen and attended to, as these towers were
    trained. The null is the empty prompt.

    tower: the name of a published one ("vit-l/14") or its sizes. skip: how many of the last layers
    are left out: 0 for Stable Diffusion 1, 1 for 2 and XL ("clip skip 2"). normed: whether the last
    norm is taken of what is left; XL takes none. pooled: also the vector of the first chunk,
    projected where the tower projects; without it the tower has no projection. width: of the
    tokens, by a learned linear map, where a network takes other ones. frozen: whether the tower's
    weights are kept from training. backtrack: a full chunk ends after a comma among its last so
    many tokens; 0 for no such rule.
    The vocabulary is data, not configuration: `set_vocabulary`. It is saved with the weights.
    Raises UsageError for a tower that is not known, or more layers left out than there are.
    Reference: Radford et al. 2021; Rombach et al. 2022; Podell et al. 2023.
    """

    def __init__(
        self,
        tower: str | TextSettings = "vit-l/14",
        skip: int = 0,
        normed: bool = True,
        pooled: bool = False,
        width: int | None = None,
        frozen: bool = True,
        backtrack: int = 0,
    ) -> None:
        super().__init__()
        settings = text_settings(tower)
        if not pooled:
            settings = settings.model_copy(update={"projection": None})
        if not 0 <= skip < settings.depth:
            raise UsageError(f"{skip} of {settings.depth} layers left out; use 0 or more, not all")
        self.skip, self.normed, self.pooled, self.backtrack = skip, normed, pooled, backtrack
        self.length = settings.length
        self.width = settings.width if width is None else width
        self.tower = TextTower(settings).requires_grad_(not frozen)
        self.fit = nn.Identity() if width is None else nn.Linear(settings.width, width)

    @property
    def vector_width(self) -> int | None:
        """The width of the vector it gives besides tokens, or None."""
        settings = self.tower.settings
        return (settings.projection or settings.width) if self.pooled else None

    def set_vocabulary(self, vocabulary: Vocabulary) -> "CLIPText":
        """Read prompts with this vocabulary from now on; returns itself.

        Raises UsageError for one with more ids than the tower embeds, FileError for one that does
        not hold together.
        """
        Tokenizer(vocabulary)
        rows = self.tower.settings.vocabulary
        return self.read_with(to_bytes(vocabulary), vocabulary.size, rows)

    def reader(self, data: bytes) -> Tokenizer:
        return Tokenizer(from_bytes(Vocabulary, data))

    def states(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (B, L) → the states a network attends to, and the vector, before weights and fit."""
        seen = self.tower(ids)
        left = seen.states[-1 - self.skip]
        return (self.tower.norm(left) if self.normed else left), seen.embedding

    def run(self, rows: prompted.Rows) -> prompted.Told:
        device = self.tower.position.device
        states, vector = self.states(rows.ids.to(device))
        values = self.fit(weighted(states, rows.weights))
        return prompted.Told(values, pooled=vector if self.pooled else None)


def texts(prompts: Sequence[str], encoder: CLIPText) -> Tensor:
    """Ids (B, 77) of plain texts for a tower, as CLIP compares them with pictures: one chunk each.

    The syntax of prompts is not read; what is beyond 75 tokens is left out.
    """
    signs = encoder.tokenizer
    cut = [signs(prompt)[: encoder.length - 2] for prompt in prompts]
    parts = [Chunk(tuple(ids), (1.0,) * len(ids)) for ids in cut]
    return framed(parts, encoder.length, signs.start, signs.end, signs.pad)[0]
