"""Tiny pipelines of Stable Diffusion and latent diffusion, built with diffusers; random weights."""

import json
import math
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel, VQModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)
from encoders.tiny_clip import TEXT, VISION, randomised, write_vocabulary
from interop.foreign import filled
from torch import Tensor
from transformers import (
    BertTokenizer,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

import fromnoise as fn
from fromnoise.samplers import last

SCALED: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}
V = {"prediction_type": "v_prediction"}
UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 16,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
}
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {"steps_offset": 1}),
    "pndm": (
        "PNDMScheduler",
        {"skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False},
    ),
    "unipc": ("UniPCMultistepScheduler", {"steps_offset": 1}),
}


def scheduler(name: str = "ddim", **options: Any) -> Any:
    kind, own = SCHEDULERS[name]
    return getattr(diffusers, kind)(**SCALED | own | options)


# Sizes that a single file does not say and must be as published: groups, heads.
WIDE: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "norm_num_groups": 32,
    "attention_head_dim": 8,
    "cross_attention_dim": 64,
}
WIDE_LINEAR: dict[str, Any] = WIDE | {"block_out_channels": (64, 128), "attention_head_dim": (1, 2)}
WIDE_TEXT: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 48}


def unet(wide: bool = False, **changes: Any) -> UNet2DConditionModel:
    if wide:
        linear = changes.get("use_linear_projection") and "num_class_embeds" not in changes
        changes = (WIDE_LINEAR if linear else WIDE) | changes
    return filled(UNet2DConditionModel(**UNET | changes))


def vae(levels: int = 2, wide: bool = False, **changes: Any) -> AutoencoderKL:
    """Its latents have next to no spread, so that what diffusers draws of them is their mean."""
    made: AutoencoderKL = filled(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple((32 if wide else 8) * min(2**i, 2) for i in range(levels)),
            latent_channels=4,
            norm_num_groups=32 if wide else 4,
            **changes,
        )
    )
    made.quant_conv.weight.data[4:] = 0.0
    made.quant_conv.bias.data[4:] = -30.0
    return made


def text(kind: type = CLIPTextModel, seed: int = 0, wide: bool = False, **changes: Any) -> Any:
    return randomised(kind(CLIPTextConfig(**TEXT | (WIDE_TEXT if wide else {}) | changes)), seed)


def tokenizer(folder: Path, pad: str = "<|endoftext|>") -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(write_vocabulary(folder, pad=pad), model_max_length=77)


def _plain(
    folder: Path, pipeline: str, made: UNet2DConditionModel, plan: Any, wide: bool, **more: Any
) -> Any:
    """One text encoder, a network, an autoencoder."""
    more = {
        "vae": vae(wide=wide),
        "text_encoder": text(wide=wide),
        "tokenizer": tokenizer(folder / "words"),
    } | more
    kind = getattr(diffusers, pipeline)
    optional = {"safety_checker": None, "feature_extractor": None}
    if pipeline == "StableDiffusionDepth2ImgPipeline":
        optional = {}
    if pipeline in ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"):
        optional["requires_safety_checker"] = False
    return kind(unet=made, scheduler=plan, **optional | more)


def sd1(folder: Path, plan: Any = None, wide: bool = False, **changes: Any) -> Any:
    return _plain(
        folder, "StableDiffusionPipeline", unet(wide, **changes), plan or scheduler(), wide
    )


def sd2(folder: Path, plan: Any = None, wide: bool = False, **changes: Any) -> Any:
    """Linear projections, heads as wide as each other, a tower that pads with another sign."""
    heads = {} if wide else {"attention_head_dim": (2, 4)}
    made = unet(wide, use_linear_projection=True, **heads, **changes)
    words = tokenizer(folder / "words", pad="!")
    tower = text(hidden_act="gelu", num_hidden_layers=2, wide=wide)
    return _plain(
        folder,
        "StableDiffusionPipeline",
        made,
        plan or scheduler("ddim", **V),
        wide,
        text_encoder=tower,
        tokenizer=words,
    )


def inpaint(folder: Path, plan: Any = None, wide: bool = False) -> Any:
    return _plain(
        folder,
        "StableDiffusionInpaintPipeline",
        unet(wide, in_channels=9),
        plan or scheduler(),
        wide,
    )


def depth(folder: Path, plan: Any = None, wide: bool = False) -> Any:
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    torch.manual_seed(0)
    dpt = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=32,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
    )
    return _plain(
        folder,
        "StableDiffusionDepth2ImgPipeline",
        unet(wide, in_channels=5),
        plan or scheduler(),
        wide,
        depth_estimator=filled(DPTForDepthEstimation(dpt)),
        feature_extractor=DPTImageProcessor(size={"height": 32, "width": 32}),
    )


def upscale(folder: Path, plan: Any = None, wide: bool = False) -> Any:
    made = unet(
        wide,
        in_channels=7,
        num_class_embeds=1000,
        only_cross_attention=(True, False),
        use_linear_projection=True,
    )
    noise = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    return diffusers.StableDiffusionUpscalePipeline(
        unet=made,
        vae=vae(wide=wide, scaling_factor=0.08333),
        text_encoder=text(wide=wide, hidden_act="gelu"),
        tokenizer=tokenizer(folder / "words", pad="!"),
        scheduler=plan or scheduler("ddim", **V),
        low_res_scheduler=noise,
    )


def variations(folder: Path, plan: Any = None) -> Any:
    del folder
    tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION | {"projection_dim": 16}))
    return diffusers.StableDiffusionImageVariationPipeline(
        vae=vae(),
        image_encoder=randomised(tower),
        unet=unet(),
        scheduler=plan or scheduler(),
        safety_checker=None,
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
        requires_safety_checker=False,
    )


def sdxl(folder: Path, plan: Any = None, wide: bool = False) -> Any:
    made = unet(
        wide,
        cross_attention_dim=64 + 128 if wide else 32,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256 if wide else 8,
        projection_class_embeddings_input_dim=12 + 6 * (256 if wide else 8),
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(wide=wide, scaling_factor=0.13025),
        text_encoder=text(wide=wide),
        # diffusers tells the towers of one file apart by their widths.
        text_encoder_2=text(
            CLIPTextModelWithProjection,
            1,
            hidden_act="gelu",
            **({"hidden_size": 128, "num_attention_heads": 2} if wide else {}),
        ),
        tokenizer=tokenizer(folder / "words"),
        tokenizer_2=tokenizer(folder / "words2", pad="!"),
        unet=made,
        scheduler=plan or scheduler("euler"),
        add_watermarker=False,
    )


def refiner(folder: Path, plan: Any = None, wide: bool = False) -> Any:
    made = unet(
        wide,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256 if wide else 8,
        projection_class_embeddings_input_dim=1280 + 5 * (256 if wide else 8),
    )
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=vae(wide=wide, scaling_factor=0.13025),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=text(
            CLIPTextModelWithProjection, 1, wide, hidden_act="gelu", projection_dim=1280
        ),
        tokenizer_2=tokenizer(folder / "words", pad="!"),
        unet=made,
        scheduler=plan or scheduler("euler"),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


def ldm_text(folder: Path, plan: Any = None, wide: bool = False) -> Any:
    config = LDMBertConfig(
        vocab_size=40,
        encoder_layers=2,
        encoder_ffn_dim=24,
        encoder_attention_heads=2,
        head_dim=64 if wide else 8,
        d_model=64 if wide else 16,
        pad_token_id=0,
    )
    words = folder / "words"
    words.mkdir(parents=True, exist_ok=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "red", "##s", "dog"]
    (words / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return diffusers.LDMTextToImagePipeline(
        vqvae=vae(4, wide),
        bert=randomised(LDMBertModel(config)),
        tokenizer=BertTokenizer(str(words / "vocab.txt"), model_max_length=77),
        unet=unet(wide),
        scheduler=plan or scheduler(),
    )


def ldm(folder: Path, plan: Any = None, wide: bool = False) -> Any:
    """wide: its latents are not scaled either, as those of the published ones are not."""
    del folder
    widths, groups = ((32, 64), 32) if wide else ((8, 16), 4)
    codec = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=widths,
        latent_channels=3,
        num_vq_embeddings=32,
        norm_num_groups=groups,
        scaling_factor=1.0 if wide else 0.5,
    )
    network = UNet2DModel(
        sample_size=8,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=groups,
    )
    from diffusers import LDMPipeline

    return LDMPipeline(
        vqvae=filled(codec), unet=filled(network), scheduler=plan or scheduler("ddim")
    )


MADE: dict[str, Any] = {
    "sd1": sd1,
    "sd2": sd2,
    "inpaint": inpaint,
    "depth": depth,
    "upscale": upscale,
    "variations": variations,
    "sdxl": sdxl,
    "refiner": refiner,
    "ldm-text": ldm_text,
    "ldm": ldm,
}


def saved(root: Path, family: str, plan: Any = None, **more: Any) -> tuple[Any, Path]:
    """A pipeline and the folder it was written to."""
    pipeline = MADE[family](root, plan, **more)
    pipeline.set_progress_bar_config(disable=True)
    folder = root / "model"
    pipeline.save_pretrained(folder)
    return pipeline, folder


def noise(count: int = 1, channels: int = 4, size: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def picture(size: int = 16, seed: int = 2) -> Tensor:
    """A smooth random picture in [−1, 1], (1, 3, size, size)."""
    small = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    made = torch.nn.functional.interpolate(small, [size, size], mode="bilinear")
    return made * 2 - 1


def started(plan: Any, latents: Tensor) -> Tensor:
    """What diffusers makes of latents it is given, in our scaling: α·x0 + σ·ε."""
    if not type(plan).__name__.startswith("Euler"):
        return latents
    first = float(plan.sigmas[0])
    return latents * float(plan.init_noise_sigma) / math.sqrt(first**2 + 1)


def ours(model: fn.Model, **asked: Any) -> tuple[Tensor, Tensor]:
    """The last latents and their pictures, float32."""
    x = last(model.stream(1, dtype="float32", **asked))
    return x, model.decode(x)


@torch.no_grad()
def decoded(pipeline: Any, latents: Tensor) -> Tensor:
    """Pictures of latents in [−1, 1] as a pipeline ends."""
    codec = pipeline.vae if hasattr(pipeline, "vae") else pipeline.vqvae
    made = codec.decode(latents / codec.config.scaling_factor).sample
    return made.clamp(-1, 1)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
