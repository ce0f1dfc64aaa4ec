"""One table of diffusion and its neighbours, from their trained and evaluated runs.

    for name in digits digits-vdm digits-vae digits-hvae digits-gan; do
      fromnoise train $name && fromnoise evaluate runs/$name --samples 400
    done
    python -m benchmarks neighbours

The figures are those of each run's `evaluation.json`, of samples drawn without guidance.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.output import PICTURES, RESULTS
from fromnoise import samplers
from fromnoise.core.errors import FileError
from fromnoise.core.files import read_json, write_bytes, write_json
from fromnoise.core.images import png_bytes
from fromnoise.interop.loading import load
from fromnoise.model import Model, sheet

NAMES = ("digits", "digits-vdm", "digits-vae", "digits-hvae", "digits-gan")
COLUMNS = (
    "bits/dim", "Fréchet", "precision", "recall", "labels", "evaluations", "parameters",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What is known of one run; bits is None where there is no likelihood.

    evaluations: of the network for one sample.
    """

    name: str
    bits: float | None
    frechet: float
    precision: float
    recall: float
    labels: float
    evaluations: int
    parameters: int

    def line(self) -> str:
        """A line of the table, in Markdown."""
        bits = "not defined" if self.bits is None else f"{self.bits:.2f}"
        cells = (
            f"`{self.name}`", bits, f"{self.frechet:.2f}", f"{self.precision:.2f}",
            f"{self.recall:.2f}", f"{self.labels:.3f}", f"{self.evaluations}",
            f"{self.parameters:,}",
        )  # fmt: skip
        return f"| {' | '.join(cells)} |"


def row(folder: Path, model: Model) -> Row:
    """The row of a run. FileError when it was not evaluated."""
    path = folder / "evaluation.json"
    if not path.is_file():
        raise FileError(f"{folder} was not evaluated; `fromnoise evaluate {folder} --samples 400`")
    found: dict[str, Any] = read_json(path)
    drawn = found["sampling"]
    return Row(
        name=folder.name,
        bits=found["bits_per_dim"]["value"] if "bits_per_dim" in found else None,
        frechet=found["frechet_distance"]["value"],
        precision=found["precision"]["value"],
        recall=found["recall"]["value"],
        labels=_value(found["label_accuracy"]["unguided"]),
        evaluations=drawn["steps"] * samplers.get(drawn["sampler"]).evaluations,
        parameters=sum(p.numel() for p in model.denoiser.parameters()),
    )


def _value(figure: Any) -> float:
    return float(figure["value"] if isinstance(figure, dict) else figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; write the figures, and a picture with two rows of samples of each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--names", nargs="+", default=list(NAMES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    options = parser.parse_args(arguments)
    print(f"| recipe | {' | '.join(COLUMNS)} |\n|---{'|---' * len(COLUMNS)}|")
    rows, pictures = [], []
    for name in options.names:
        model = load(options.runs / name)
        rows.append(row(options.runs / name, model))
        print(rows[-1].line(), flush=True)
        label = [i % 10 for i in range(20)]
        pictures.append(model.sample(20, label=label, guidance=1.0, dtype="float32").tensor)
    write_json(
        options.results / "neighbours.json", {"format": 1, "rows": [asdict(r) for r in rows]}
    )
    write_bytes(options.pictures / "neighbours.png", png_bytes(sheet(torch.cat(pictures), 20, 6)))
    print("picture neighbours.png, figures neighbours.json")


if __name__ == "__main__":
    main()
