"""What a network adds to its features: time and the raw vectors of a condition, as one vector."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from fromnoise.core.errors import UsageError, unknown
from fromnoise.layers.embeddings import Convention, TimeEmbedding, Waves, sinusoidal
from fromnoise.layers.init import xavier_

_NONE: Mapping[str, int] = MappingProxyType({})


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


class Joined(nn.Module):
    """Raw vectors side by side through Linear, SiLU, Linear: (B, Σ features) to (B, out).

    vectors: names and widths. waves: names in their order, with how many sines and cosines stand
    for each number of the vector, `sinusoidal`; 0 leaves the vector as it is. They are taken in
    float32, or in float64 where the layer is float64, as those of time are.
    Raises UsageError for a name that is not among the vectors.
    Reference: Podell et al. 2023 (SDXL), section 2.2.
    """

    def __init__(
        self, vectors: Mapping[str, int], waves: Mapping[str, int], out: int, convention: Convention
    ) -> None:
        super().__init__()
        for name in waves:
            if name not in vectors:
                raise unknown("joined vector", name, list(vectors))
        if any(waves.values()) and convention not in ("ddpm", "adm", "closed"):
            raise UsageError(f"joined vectors become sines; time {convention!r} has none for them")
        self.waves = dict(waves)
        self.convention = convention
        width = sum(vectors[name] * (count or 1) for name, count in waves.items())
        self.first = nn.Linear(width, out)
        self.second = nn.Linear(out, out)

    def forward(self, vectors: Mapping[str, Tensor]) -> Tensor:
        parts = [self._features(vectors[name], count) for name, count in self.waves.items()]
        answer: Tensor = self.second(silu(self.first(torch.cat(parts, dim=1))))
        return answer

    def _features(self, vector: Tensor, count: int) -> Tensor:
        dtype = self.first.weight.dtype
        if not count:
            return vector.to(dtype)
        exact = vector.to(torch.promote_types(dtype, torch.float32))
        waves = sinusoidal(exact.flatten(), count, cast(Waves, self.convention))
        return waves.reshape(len(vector), -1).to(dtype)


class Embedding(nn.Module):
    """Time embedding plus one linear map without bias for each raw vector.

    e = embed(t) + Σ table_name(v_name) + join(v). On a one-hot label a table gives the row of an
    embedding table, and on a mixture of labels the weighted mean.

    width: of the time features; out: of e; vectors: names and widths; tables: what makes a table
    from its width and `out`; joined: vectors without a table, see `Joined`.
    """

    def __init__(
        self,
        width: int,
        out: int,
        convention: Convention,
        vectors: Mapping[str, int],
        tables: Callable[[int, int], nn.Module] = table,
        joined: Mapping[str, int] = _NONE,
    ) -> None:
        super().__init__()
        self.time = xavier_(TimeEmbedding(width, out, convention))
        self.vector = nn.ModuleDict(
            {k: tables(size, out) for k, size in vectors.items() if k not in joined}
        )
        self.joined = xavier_(Joined(vectors, joined, out, convention)) if joined else None

    def forward(self, time: Tensor, vectors: Mapping[str, Tensor]) -> Tensor:
        embedded: Tensor = self.time(time)
        for name, embed in self.vector.items():
            embedded = embedded + embed(vectors[name].to(embedded.dtype))
        if self.joined is not None:
            embedded = embedded + self.joined(vectors)
        return embedded
