"""One network in one file: its weights under our names, its configuration in the metadata.

For what is a network but no model: a classifier, an upsampler, a network of latents.
"""

import json
from pathlib import Path

from fromnoise import nets
from fromnoise.core import strictjson
from fromnoise.core.errors import FileError
from fromnoise.core.files import load_tensors, read_header, save_tensors
from fromnoise.model.files import fill
from fromnoise.nets import Network

KEY = "fromnoise_network"


def save_network(path: str | Path, network: Network, about: dict[str, str]) -> None:
    """Write a network as one safetensors file. about: further texts of the metadata."""
    save_tensors(path, network.state_dict(), {**about, KEY: json.dumps(network.config)})


def is_network(path: str | Path) -> bool:
    """Whether a safetensors file holds a network."""
    return KEY in read_header(path).metadata


def load_network(path: str | Path) -> Network:
    """Read a network that `save_network` wrote.

    Raises FileError for a file that holds none, or whose weights are not those of its
    configuration.
    """
    path = Path(path)
    tensors, metadata = load_tensors(path)
    if KEY not in metadata:
        raise FileError(f"{path} does not say which network its weights are of")
    config = strictjson.loads(metadata[KEY].encode(), f"{path} ({KEY})")
    if not isinstance(config, dict):
        raise FileError(f"{path}: {KEY} is no configuration")
    network = nets.build(config)
    fill(network, tensors, path)
    return network.eval()
