"""Text to vector to picture: do a prior's vectors find their captions, and the pictures show them?

    python -m benchmarks.prior -n 400
    python -m benchmarks.prior --decoder runs/shapes-decoder --direct runs/shapes-text

First, how often the caption nearest to a vector is its own, for vectors of real pictures and those
that the prior draws of the captions, each caption once. Then, with `--decoder RUN`, the reader's
share of pictures drawn from either, and with `--direct RUN` of a model told the captions
themselves. The last figure of such a row is the mean cosine between the vector told and that of the
picture drawn. Captions are of scenes that no training saw (another seed).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from benchmarks.text_guidance import SEED, shares
from fromnoise.core.files import write_bytes
from fromnoise.core.images import png_bytes
from fromnoise.data import Shapes
from fromnoise.data.embedded import EMBEDDING
from fromnoise.evaluate.retrieval import retrieval
from fromnoise.guidance import Matcher
from fromnoise.interop.loading import load
from fromnoise.model import Samples

_PRIOR_SEED = 1 << 61


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each source of vectors, and for each way to a picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prior", default="runs/shapes-prior")
    parser.add_argument("--by", default="runs/shapes-clip")
    parser.add_argument("--decoder", default=None)
    parser.add_argument("--direct", default=None)
    parser.add_argument("-n", "--count", type=int, default=200)
    parser.add_argument("--guidance", type=float, default=None)
    parser.add_argument("--prior-guidance", type=float, default=None)
    parser.add_argument("--pictures", type=Path, default=None)
    options = parser.parse_args(arguments)
    asked, x = scenes(options.count)
    matcher = Matcher.of(load(options.by))
    with torch.no_grad():
        real, texts = matcher.pictures(x), matcher.captions(asked)
    seeds = [i ^ _PRIOR_SEED for i in range(len(asked))]
    prior = load(options.prior)
    vectors = prior.sample(
        len(asked), prompt=asked, guidance=options.prior_guidance, seed=seeds
    ).tensor
    told = {"real vectors": real * real.shape[1] ** 0.5, "prior": vectors}
    for name, z in told.items():
        found = retrieval(normalize(z, dim=1), texts)
        shown = [f"{k} {v.value:.3f} ({v.low:.3f} to {v.high:.3f})" for k, v in found.items()]
        print(f"{name}, {len(asked)} captions: {', '.join(shown)}", flush=True)
    print(f"prior: cosine to the real vector {cosine_similarity(vectors, real).mean():.3f}")
    for name, pictures in _drawn(options, asked, told).items():
        print(f"{name}: {shares(pictures, asked)}; {_kept(matcher, pictures, told.get(name))}")
        if options.pictures is not None:
            sheet = png_bytes(Samples(pictures[:40], {}).sheet(columns=10))
            write_bytes(options.pictures / f"prior-{name.split()[0]}.png", sheet)


def scenes(count: int) -> tuple[list[str], Tensor]:
    """Of so many scenes of another seed each caption once, and its first picture."""
    batch = Shapes(size=32, count=count, seed=SEED).batch(range(count))
    first: dict[str, int] = {}
    for i, caption in enumerate(batch.caption or []):
        first.setdefault(caption, i)
    return list(first), batch.x[list(first.values())]


def _drawn(
    options: argparse.Namespace, asked: list[str], told: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Pictures by the decoder from each source of vectors, and by the direct model."""
    drawn = {}
    if options.decoder is not None:
        decoder = load(options.decoder)
        for name, z in told.items():
            inputs = {EMBEDDING: z}
            drawn[name] = decoder.sample(len(z), inputs=inputs, guidance=options.guidance).tensor
    if options.direct is not None:
        drawn["direct"] = load(options.direct).sample(len(asked), prompt=asked).tensor
    return drawn


def _kept(matcher: Matcher, pictures: Tensor, vectors: Tensor | None) -> str:
    if vectors is None:
        return "told no vector"
    with torch.no_grad():
        return f"{cosine_similarity(matcher.pictures(pictures), vectors).mean():.3f}"


if __name__ == "__main__":
    main()
