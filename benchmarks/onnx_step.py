"""One step of a network by onnxruntime against ours, in turn in one process.

    python -m benchmarks.onnx_step [--repeats N] [--batch B]

The networks have random weights: the digits recipes' U-Net and DDPM's for CIFAR-10. Each figure is
the least of the repeats, which are interleaved so that other work on the machine disturbs all
alike.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.timing import Row, in_turn, show
from fromnoise import nets
from fromnoise.interop.flat import Flat, dynamic_shapes, example, traced_space
from fromnoise.interop.onnx_export import write_onnx
from fromnoise.layers.condition import Condition
from fromnoise.layers.fast import prepare
from fromnoise.recipes import digits

BATCH = 4
REPEATS = 10
THREADS = 2


def exported(flat: Flat, space: Sequence[int], folder: Path) -> Path:
    """The network as an ONNX file, its batch and sizes free as `export_onnx` leaves them."""
    inputs = example(flat, 2, traced_space(flat, space, True), torch.tensor([300.0, 500.0]))
    path = folder / "denoiser.onnx"
    write_onnx(flat, inputs, dynamic_shapes(inputs, flat.network.divisor, True), flat.names, path)
    return path


@torch.inference_mode()
def measure(network: nets.Network, space: Sequence[int], batch: int, repeats: int) -> list[Row]:
    """onnxruntime and ours on the same inputs."""
    import onnxruntime

    flat = Flat(network)
    inputs = example(flat, batch, space, torch.full((batch,), 500.0))
    x, told, *rest = inputs.tensors
    condition = Condition(vector=dict(zip(network.accepts.vector, rest, strict=True)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False):
        session = onnxruntime.InferenceSession(
            exported(flat, space, Path(folder)), options, providers=["CPUExecutionProvider"]
        )
    given = {name: value.numpy() for name, value in zip(flat.names, inputs.tensors, strict=True)}
    exact, default = prepare(network, exact=True)[0], prepare(network)[0]
    functions: dict[str, Callable[[], torch.Tensor]] = {
        "onnxruntime, float32": lambda: torch.from_numpy(session.run(None, given)[0]),
        "fromnoise, plain float32": lambda: network(x, told, condition),
        "fromnoise, exact": lambda: exact(x, told, condition),
        "fromnoise, default": lambda: default(x, told, condition),
    }
    return in_turn(functions, repeats)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--batch", type=int, default=BATCH)
    choice = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    for title, config, space in (
        ("the digits network", digits.net(), (8, 8)),
        ("DDPM's CIFAR-10 network", "ddpm-cifar10", (32, 32)),
    ):
        torch.manual_seed(0)
        network = nets.build(config).eval().requires_grad_(False)
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        rows = measure(network, space, choice.batch, choice.repeats)
        how = f"batch {choice.batch}, {THREADS} threads, least of {choice.repeats}"
        show(f"{title}, {how}", rows)


if __name__ == "__main__":
    main()
