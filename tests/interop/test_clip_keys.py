"""CLIP's weights under three programs' names: every number arrives, and comes back bit for bit."""

import pytest
import torch
from encoders.tiny_clip import TEXT, VISION, randomised
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from fromnoise.core.errors import FileError
from fromnoise.encoders.clip_towers import CLIP, TEXTS, TextTower, VisionTower
from fromnoise.interop import clip_keys
from fromnoise.interop.clip_keys import part, to_openai, to_ours, to_transformers

State = dict[str, Tensor]
TEXT_CONFIG, VISION_CONFIG = CLIPTextConfig(**TEXT), CLIPVisionConfig(**VISION)
BOTH_CONFIG = CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)


def model(kind: type) -> torch.nn.Module:
    configs = {
        CLIPModel: BOTH_CONFIG,
        CLIPVisionModel: VISION_CONFIG,
        CLIPVisionModelWithProjection: VISION_CONFIG,
    }
    torch.manual_seed(0)
    return randomised(kind(configs.get(kind, TEXT_CONFIG)))


def ours(kind: type) -> TextTower | VisionTower | CLIP:
    projected = kind in (CLIPModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection)
    text = clip_keys.text_settings(BOTH_CONFIG.to_dict(), projected)
    vision = clip_keys.vision_settings(BOTH_CONFIG.to_dict(), projected)
    if kind is CLIPModel:
        return CLIP(text, vision)
    return TextTower(text) if kind.__name__.startswith("CLIPText") else VisionTower(vision)


def old(state: State, prefix: str) -> State:
    """The names before transformers 5.6, with the constants that were saved then."""
    named = {
        n if n.startswith((prefix, "text_proj", "visual_proj")) else f"{prefix}{n}": v
        for n, v in state.items()
    }
    return {**named, f"{prefix}embeddings.position_ids": torch.arange(77)[None]}


def openai(state: State) -> State:
    """A `CLIPModel` state dict under the names of OpenAI's code, written out by hand."""
    made: State = {"logit_scale": state["logit_scale"]}
    made["text_projection"] = state["text_projection.weight"].T
    made["visual.proj"] = state["visual_projection.weight"].T
    made["token_embedding.weight"] = state["text_model.embeddings.token_embedding.weight"]
    made["positional_embedding"] = state["text_model.embeddings.position_embedding.weight"]
    made["visual.positional_embedding"] = state["vision_model.embeddings.position_embedding.weight"]
    made["visual.class_embedding"] = state["vision_model.embeddings.class_embedding"]
    made["visual.conv1.weight"] = state["vision_model.embeddings.patch_embedding.weight"]
    for kind in ("weight", "bias"):
        made[f"ln_final.{kind}"] = state[f"text_model.final_layer_norm.{kind}"]
        made[f"visual.ln_pre.{kind}"] = state[f"vision_model.pre_layrnorm.{kind}"]
        made[f"visual.ln_post.{kind}"] = state[f"vision_model.post_layernorm.{kind}"]
        for side, prefix in (("text", ""), ("vision", "visual.")):
            for i in range(3):
                there = f"{side}_model.encoder.layers.{i}"
                block = f"{prefix}transformer.resblocks.{i}"
                made[f"{block}.attn.in_proj_{kind}"] = torch.cat(
                    [state[f"{there}.self_attn.{p}_proj.{kind}"] for p in ("q", "k", "v")]
                )
                made[f"{block}.attn.out_proj.{kind}"] = state[f"{there}.self_attn.out_proj.{kind}"]
                made[f"{block}.ln_1.{kind}"] = state[f"{there}.layer_norm1.{kind}"]
                made[f"{block}.ln_2.{kind}"] = state[f"{there}.layer_norm2.{kind}"]
                made[f"{block}.mlp.c_fc.{kind}"] = state[f"{there}.mlp.fc1.{kind}"]
                made[f"{block}.mlp.c_proj.{kind}"] = state[f"{there}.mlp.fc2.{kind}"]
    return made


def same(a: State, b: State) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


KINDS = [
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    CLIPModel,
]


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_names_both_ways(kind: type) -> None:
    theirs, module = model(kind).state_dict(), ours(kind)
    mine = to_ours(theirs, module)
    module.load_state_dict(mine)
    back = to_transformers(module.state_dict(), module)
    same(to_ours(back, module), mine)
    same(to_ours(to_openai(mine, module), module), mine)
    if kind is not CLIPModel:
        prefix = "text_model." if kind.__name__.startswith("CLIPText") else "vision_model."
        same(to_ours(old(theirs, prefix), module), mine)
        assert all(name.startswith((prefix, "text_proj", "visual_proj")) for name in back)
    if kind in (CLIPTextModelWithProjection, CLIPVisionModelWithProjection, CLIPModel):
        same(back, theirs)
    # Their model opens what is written, of every version.
    fresh = kind(model(kind).config)
    flat = {n.removeprefix("text_model.").removeprefix("vision_model."): v for n, v in back.items()}
    fresh.load_state_dict(back if back.keys() == fresh.state_dict().keys() else flat)


def test_openai_names_both_ways_and_the_same_numbers() -> None:
    network = model(CLIPModel)
    theirs, module = openai(network.state_dict()), ours(CLIPModel)
    module.load_state_dict(to_ours(theirs, module))
    same(to_openai(module.state_dict(), module), theirs)
    same(to_ours(theirs, module), to_ours(network.state_dict(), module))
    ids = torch.randint(0, 500, (2, 9), generator=torch.Generator().manual_seed(0))
    ids[:, -1] = 513
    pictures = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = network(input_ids=ids, pixel_values=pictures).logits_per_image
        assert torch.allclose(module(ids, pictures), wanted, atol=1e-4)
        # Query and key exchanged would be seen.
        for name in list(theirs):
            if "in_proj" in name:
                query, key, value = theirs[name].chunk(3)
                theirs[name] = torch.cat([key, query + 1, value])
        module.load_state_dict(to_ours(theirs, module))
        assert not torch.allclose(module(ids, pictures), wanted, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS[:4])
def test_a_tower_takes_its_part_of_a_whole_model(kind: type) -> None:
    whole = model(CLIPModel).state_dict()
    module = ours(kind)
    constants = {"context_length": torch.tensor(77), "attn_mask": torch.zeros(77, 77)}
    mine = to_ours(whole, module)
    same(to_ours(openai(whole) | constants, module), mine)
    assert mine.keys() == module.state_dict().keys()
    side = "text" if isinstance(module, TextTower) else "vision"
    everything = to_ours(whole, ours(CLIPModel))
    same(mine, {name: everything[f"{side}.{name}"] for name in mine})


def test_the_text_towers_of_stable_diffusion_files() -> None:
    whole = model(CLIPModel).state_dict()
    first, second = ours(CLIPTextModel), ours(CLIPTextModelWithProjection)
    text = {n: v for n, v in whole.items() if n.startswith("text_model.")}
    large = {n: v for n, v in openai(whole).items() if not n.startswith("visual.")}
    one = {f"cond_stage_model.transformer.{n}": v for n, v in old(text, "text_model.").items()}
    two = {f"cond_stage_model.model.{n}": v for n, v in large.items()}
    xl = {f"conditioner.embedders.0.transformer.{n}": v for n, v in text.items()}
    xl |= {f"conditioner.embedders.1.model.{n}": v for n, v in large.items()}
    unet = {"model.diffusion_model.out.0.weight": torch.zeros(3)}
    files = [one, two, xl, xl]
    for place, file, tower in zip(
        clip_keys.PLACES[:4], files, [first, first, first, second], strict=True
    ):
        same(to_ours(part(file | unet, place), tower), to_ours(whole, tower))
    with pytest.raises(FileError, match=r"begin with 'cond_stage_model\.model\.'"):
        part(one | unet, "cond_stage_model.model.")


def test_published_names_and_shapes_of_the_large_text_tower() -> None:
    with torch.device("meta"):
        tower = TextTower(TEXTS["vit-bigg/14"])
    shapes = {n: tuple(v.shape) for n, v in to_openai(tower.state_dict(), tower).items()}
    assert shapes["text_projection"] == (1280, 1280)
    assert shapes["positional_embedding"] == (77, 1280)
    assert shapes["transformer.resblocks.31.attn.in_proj_weight"] == (3840, 1280)
    assert shapes["transformer.resblocks.0.mlp.c_fc.weight"] == (5120, 1280)
    assert len(shapes) == 32 * 12 + 5


def test_what_has_no_place_is_named() -> None:
    state, tower = model(CLIPTextModel).state_dict(), ours(CLIPTextModel)
    with pytest.raises(FileError, match="no transformer is named"):
        to_ours({"a.weight": torch.zeros(1)}, tower)
    with pytest.raises(FileError, match=r"lacks text_model\.final_layer_norm\.bias"):
        to_ours({n: v for n, v in state.items() if n != "final_layer_norm.bias"}, tower)
    with pytest.raises(FileError, match=r"no place for text_model\.encoder\.layers\.3\.extra"):
        to_ours(state | {"encoder.layers.3.extra": torch.zeros(1)}, tower)
    name = next(n for n in state if n.endswith("token_embedding.weight"))
    with pytest.raises(FileError, match=r"'embedding.weight' has shape \(5, 16\)"):
        to_ours(state | {name: torch.zeros(5, 16)}, tower)
