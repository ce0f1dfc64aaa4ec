"""What a network adds to its features: time and the raw vectors of a condition, as one vector."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from fromnoise.layers.embeddings import Convention, TimeEmbedding
from fromnoise.layers.init import xavier_


def table(size: int, out: int) -> nn.Module:
    """A linear map without bias, (B, size) to (B, out); a vector of zeros adds nothing.

    It starts as standard normal, as embedding tables do.
    """
    made = nn.Linear(size, out, bias=False)
    nn.init.normal_(made.weight)
    return made


class NullTable(nn.Module):
    """A linear map without bias, with one more row for nothing: (B, size) to (B, out).

    W v + (1 − Σ v) w: a one-hot label is its row of a table, a mixture of labels whose weights sum
    to 1 their mean, and a vector of zeros is the learned row w of nothing, the last of the table.
    It starts as normal with standard deviation 0.02.

    Reference: Ho & Salimans 2021 (a learned null); the values are DiT's (Peebles & Xie 2023).
    """

    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, size + 1))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, v: Tensor) -> Tensor:
        return linear(torch.cat([v, 1 - v.sum(dim=1, keepdim=True)], dim=1), self.weight)


class Embedding(nn.Module):
    """Time embedding plus one linear map without bias for each raw vector.

    e = embed(t) + Σ table_name(v_name). On a one-hot label a table gives the row of an embedding
    table, and on a mixture of labels the weighted mean.

    width: of the time features; out: of e; vectors: names and widths; tables: what makes a table
    from its width and `out`.
    """

    def __init__(
        self,
        width: int,
        out: int,
        convention: Convention,
        vectors: Mapping[str, int],
        tables: Callable[[int, int], nn.Module] = table,
    ) -> None:
        super().__init__()
        self.time = xavier_(TimeEmbedding(width, out, convention))
        self.vector = nn.ModuleDict({k: tables(size, out) for k, size in vectors.items()})

    def forward(self, time: Tensor, vectors: Mapping[str, Tensor]) -> Tensor:
        embedded: Tensor = self.time(time)
        for name, embed in self.vector.items():
            embedded = embedded + embed(vectors[name].to(embedded.dtype))
        return embedded
