"""Word-vector arithmetic of an image-text model: is red circle − red + blue a blue circle?

    python -m benchmarks.words runs/shapes-clip

g(a) − g(b) + g(c), brought to length 1, is looked up among the 24 texts "a COLOUR KIND" by cosine.
As is usual, a itself does not count as an answer; the share where it is not left out stands beside.
Over all 120 changes of a colour and all 72 of a kind.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fromnoise.data.scenes import COLOURS, KINDS
from fromnoise.evaluate import Estimate, wilson
from fromnoise.guidance.matcher import Matcher
from fromnoise.interop.loading import load

Pair = tuple[str, str]
Sum = tuple[str, str, str, Pair, Pair]
"""a, b, c as texts; the pair that a shows, and the one that a − b + c should."""

PAIRS = [(colour, kind) for colour in COLOURS for kind in KINDS]


def text(pair: Pair) -> str:
    """A pair as a caption: "a red circle"."""
    return f"a {pair[0]} {pair[1]}"


def colours_by_word() -> Iterator[Sum]:
    """a red circle − red + blue."""
    for kind in KINDS:
        for one, other in permutations(COLOURS, 2):
            yield text((one, kind)), one, other, (one, kind), (other, kind)


def kinds_by_word() -> Iterator[Sum]:
    """a red circle − circle + star."""
    for colour in COLOURS:
        for one, other in permutations(KINDS, 2):
            yield text((colour, one)), one, other, (colour, one), (colour, other)


def colours_by_caption() -> Iterator[Sum]:
    """a red circle − a red square + a blue square, for every kind in place of the square."""
    for kind, beside in permutations(KINDS, 2):
        for one, other in permutations(COLOURS, 2):
            texts = (text((one, kind)), text((one, beside)), text((other, beside)))
            yield (*texts, (one, kind), (other, kind))


SUMS: dict[str, Callable[[], Iterator[Sum]]] = {
    "a red circle − red + blue": colours_by_word,
    "a red circle − circle + star": kinds_by_word,
    "a red circle − a red square + a blue square": colours_by_caption,
}


def accuracy(direction: Callable[[Sequence[str]], Tensor], sums: Sequence[Sum]) -> list[Estimate]:
    """The share of right answers without a among them, and with it."""
    known = direction([text(pair) for pair in PAIRS])
    a, b, c = (direction([one[i] for one in sums]) for i in range(3))
    near = normalize(a - b + c, dim=1) @ known.T
    wanted = torch.tensor([PAIRS.index(one[4]) for one in sums])
    own = torch.tensor([PAIRS.index(one[3]) for one in sums])
    without = near.scatter(1, own[:, None], -torch.inf)
    rights = [(likeness.argmax(1) == wanted).sum() for likeness in (without, near)]
    return [wilson(int(right), len(sums)) for right in rights]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each kind of sum."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", nargs="?", default="runs/shapes-clip")
    options = parser.parse_args(arguments)
    matcher = Matcher.of(load(options.run))
    with torch.no_grad():
        print("| sum | right | with a among the answers | sums |\n|---|---|---|---|")
        for name, made in SUMS.items():
            without, among = accuracy(matcher.captions, list(made()))
            shown = f"{without.value:.3f} ({without.low:.3f} to {without.high:.3f})"
            print(f"| {name} | {shown} | {among.value:.3f} | {without.count} |")


if __name__ == "__main__":
    main()
