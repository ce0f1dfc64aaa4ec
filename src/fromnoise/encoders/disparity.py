"""How near each place is, given or found by a network that sees depth in one picture."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import read_json
from fromnoise.core.images import at_edge, read_image, to_tensor
from fromnoise.encoders.base import ENCODERS, Coder
from fromnoise.encoders.picture import Depth
from fromnoise.encoders.planes import numbers, stacked

if TYPE_CHECKING:
    from transformers import DPTForDepthEstimation

_PICTURE = "picture"


@ENCODERS.register("disparity")
class Disparity(Depth):
    """How near each place is, as one channel: what is nearest in a picture 1, what is farthest −1.

    It has no unit and each picture its own range: 2·(d − min)/(max − min) − 1, after d is brought
    to the size of the latents (bicubic). It is told in both halves of guidance.

    Raw input: (H, W), (1, H, W) or a batch of them, larger being nearer; a grey picture, white
    being near; or a mapping with a "picture", whose depth the network `source` finds.
    source: a folder of transformers with a DPT, or a name on the hub; opened when it is first
    needed, from safetensors only, and not saved with the model.
    Raises UsageError without an input, or for a picture where there is no network.
    Reference: Ranftl et al. 2021, "Vision Transformers for Dense Prediction"; as published for
    Stable Diffusion 2.
    """

    droppable = False

    def __init__(self, source: str | None = None) -> None:
        super().__init__("each")
        self.source = source

    def opened(self, raw: Any, space: Sequence[int]) -> Any:
        return raw if isinstance(raw, Mapping) else super().opened(raw, space)

    def shaped(self, name: str, raw: Any, space: Sequence[int], coder: Coder | None = None) -> Any:
        if raw is None:
            raise UsageError(
                f"this model is told a depth: give it as the input {name}, a grey picture (white "
                f"is near), or {{'picture': …}} to have it found"
            )
        if isinstance(raw, Mapping):
            if raw.keys() != {_PICTURE}:
                raise UsageError(f"{name} is a depth, or {{'picture': …}}, not {list(raw)}")
            raw = self.found(raw[_PICTURE])
        value = torch.as_tensor(raw).float()
        value = value[None] if value.ndim == 2 else value
        value = value[:, None] if value.ndim == 3 else value
        if value.ndim != 4 or value.shape[1] != 1:
            return raw
        if tuple(value.shape[2:]) != tuple(space):
            value = interpolate(value, list(space), mode="bicubic", align_corners=False)
        return value[0, 0] if len(value) == 1 else value[:, 0]

    def each(self, raw: Any, batch: int) -> Any:
        return raw if isinstance(raw, Mapping) else super().each(raw, batch)

    def found(self, raw: Any) -> Tensor:
        """The depths (B, h, w) of pictures or paths, or tensors (3, H, W) in [−1, 1]."""
        several = isinstance(raw, list | tuple) or (isinstance(raw, Tensor) and raw.ndim == 4)
        seen = torch.stack([self._seen(one) for one in (raw if several else [raw])])
        with torch.no_grad():
            depth: Tensor = self._network(pixel_values=seen).predicted_depth
        return depth.float()

    def _seen(self, raw: Any) -> Tensor:
        """One picture as the network takes it, (3, height, width)."""
        height, width, mean, std = self._preparation
        if at_edge(raw):
            image = Image.fromarray(raw) if isinstance(raw, np.ndarray) else raw
            image = image if isinstance(image, Image.Image) else read_image(image)
            sized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
            picture = to_tensor(sized)
        else:
            value = stacked(_PICTURE, raw, 1, (3, None, None), lambda v: numbers(_PICTURE, v))
            picture = interpolate(value, [height, width], mode="bicubic", antialias=True)[0]
        return (picture.clamp(-1, 1) / 2 + 0.5 - mean) / std

    @cached_property
    def _network(self) -> "DPTForDepthEstimation":
        if self.source is None:
            raise UsageError(
                "no network that finds depths was named; give the depth itself, or open the model "
                "from a folder with a depth_estimator"
            )
        try:
            from transformers import DPTForDepthEstimation
        except ImportError:
            raise UsageError(
                "depths are found with transformers, which is not installed: "
                "pip install 'fromnoise[text]'"
            ) from None
        try:
            network = DPTForDepthEstimation.from_pretrained(self.source, use_safetensors=True)
        except Exception as error:
            # Whatever the library raises: a folder that is none, no network, weights of another.
            said = str(error).strip().split("\n")[0] or type(error).__name__
            raise FileError(f"no DPT could be opened from {self.source!r}: {said}") from None
        network.requires_grad_(False)
        network.train(False)
        return network

    @cached_property
    def _preparation(self) -> tuple[int, int, Tensor, Tensor]:
        """Height, width, mean and spread of what the network takes."""
        config: Any = self._network.config
        raw: Any = {}
        folder = Path(str(self.source))
        for place in (folder, folder.parent / "feature_extractor"):
            if (place / "preprocessor_config.json").is_file():
                raw = dict(read_json(place / "preprocessor_config.json", finite=False))
                break
        size = raw.get("size", config.image_size)
        sides = size if isinstance(size, dict) else {"height": size, "width": size}
        mean, std = (
            torch.tensor(raw.get(key) or [0.5] * 3)[:, None, None]
            for key in ("image_mean", "image_std")
        )
        return int(sides["height"]), int(sides["width"]), mean, std
