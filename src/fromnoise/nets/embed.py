"""What a network adds to its features: time and the raw vectors of a condition, as one vector."""

from collections.abc import Mapping

from torch import Tensor, nn

from fromnoise.layers.embeddings import Convention, TimeEmbedding
from fromnoise.layers.init import xavier_


class Embedding(nn.Module):
    """Time embedding plus one linear map without bias for each raw vector.

    e = embed(t) + Σ W_name v_name. On a one-hot label W v is a row of an embedding table, and a
    mixture of labels its weighted mean; a vector of zeros adds nothing. The tables start as
    standard normal, as embedding tables do.

    width: of the time features; out: of e; vectors: names and widths.
    """

    def __init__(
        self, width: int, out: int, convention: Convention, vectors: Mapping[str, int]
    ) -> None:
        super().__init__()
        self.time = xavier_(TimeEmbedding(width, out, convention))
        self.vector = nn.ModuleDict({k: _table(size, out) for k, size in vectors.items()})

    def forward(self, time: Tensor, vectors: Mapping[str, Tensor]) -> Tensor:
        embedded: Tensor = self.time(time)
        for name, table in self.vector.items():
            embedded = embedded + table(vectors[name].to(embedded.dtype))
        return embedded


def _table(size: int, out: int) -> nn.Linear:
    table = nn.Linear(size, out, bias=False)
    nn.init.normal_(table.weight)
    return table
