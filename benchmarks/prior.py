"""Text to picture in two steps against one: how many drawn scenes show their caption.

    python -m benchmarks.prior --decoder runs/shapes-decoder --prior runs/shapes-prior

Rows: the decoder told the vectors of real pictures of the captions, the decoder told what the prior
draws of the captions, and, with `--direct RUN`, a model told the captions themselves. They are of
scenes that no training saw (another seed). The last figure of a row is the mean cosine between the
vector told and that of the picture drawn, by `--by`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from benchmarks.text_guidance import SEED, shares
from fromnoise.core.files import write_bytes
from fromnoise.core.images import png_bytes
from fromnoise.data import Shapes
from fromnoise.data.embedded import EMBEDDING
from fromnoise.guidance import Matcher
from fromnoise.interop.loading import load
from fromnoise.model import Samples

_PRIOR_SEED = 1 << 61


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--decoder", default="runs/shapes-decoder")
    parser.add_argument("--prior", default="runs/shapes-prior")
    parser.add_argument("--by", default="runs/shapes-clip")
    parser.add_argument("--direct", default=None)
    parser.add_argument("-n", "--count", type=int, default=200)
    parser.add_argument("--guidance", type=float, default=None)
    parser.add_argument("--prior-guidance", type=float, default=None)
    parser.add_argument("--pictures", type=Path, default=None)
    options = parser.parse_args(arguments)
    batch = Shapes(size=32, count=options.count, seed=SEED).batch(range(options.count))
    asked = batch.caption or []
    matcher = Matcher.of(load(options.by))
    with torch.no_grad():
        real = matcher.pictures(batch.x)
    prior = load(options.prior)
    vectors = prior.sample(
        len(asked), prompt=asked, guidance=options.prior_guidance,
        seed=[i ^ _PRIOR_SEED for i in range(len(asked))],
    ).tensor  # fmt: skip
    decoder = load(options.decoder)
    told = {"real vectors": real * real.shape[1] ** 0.5, "prior": vectors}
    drawn = {
        name: decoder.sample(len(asked), inputs={EMBEDDING: z}, guidance=options.guidance).tensor
        for name, z in told.items()
    }
    if options.direct is not None:
        drawn["direct"] = load(options.direct).sample(len(asked), prompt=asked).tensor
    print(f"prior: cosine to the real vector {cosine_similarity(vectors, real).mean():.3f}")
    for name, pictures in drawn.items():
        print(f"{name}: {shares(pictures, asked)}; {_kept(matcher, pictures, told.get(name))}")
        if options.pictures is not None:
            sheet = png_bytes(Samples(pictures[:40], {}).sheet(columns=10))
            write_bytes(options.pictures / f"prior-{name.split()[0]}.png", sheet)


def _kept(matcher: Matcher, pictures: Tensor, vectors: Tensor | None) -> str:
    if vectors is None:
        return "told no vector"
    with torch.no_grad():
        return f"{cosine_similarity(matcher.pictures(pictures), vectors).mean():.3f}"


if __name__ == "__main__":
    main()
