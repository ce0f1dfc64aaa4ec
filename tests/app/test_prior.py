"""Image-text models from the command line: measured, not sampled; vectors, a prior, a decoder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fromnoise import data, recipes
from fromnoise.cli.main import run
from fromnoise.core.errors import UsageError
from fromnoise.core.files import load_tensors
from fromnoise.interop.loading import load
from fromnoise.recipes import Recipe

TEXT = {"kind": "text", "vocabulary": 300, "length": 16, "width": 8, "depth": 1, "heads": 2}
QUICK = {"steps": 2, "batch_size": 8, "validate_every": 0, "warmup": 0, "checkpoint_every": 0}
QUICK |= {"sample_every": 0}


def small(name: str, folder: Path, **changes: Any) -> Path:
    """A recipe made small, as a file."""
    told = recipes.get(name).model_dump(mode="json")
    told["train"] |= QUICK
    told |= changes
    path = folder / f"{name}.json"
    path.write_text(json.dumps(Recipe.model_validate(told).model_dump(mode="json")))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two steps: an image-text model, the vectors it makes, a prior and a decoder."""
    folder = tmp_path_factory.mktemp("runs")
    tower = {"kind": "classifier", "in_channels": 3, "classes": 8, "size": 32, "channels": 8}
    tower |= {"multipliers": [1], "blocks": 1, "style": {"groups": 4, "patch": 8}}
    clip = small(
        "shapes-clip-noisy",
        folder,
        data={"kind": "shapes", "size": 32, "count": 60},
        held_out=0.3,
        net={"kind": "image_text", "tower": tower, "words": 8, "noisy": True},
        encoders={"prompt": {**TEXT, "pooled": True}},
    )
    assert run(["train", str(clip), "--out", str(folder / "clip")]) == 0
    assert run(["data", "embed", str(folder / "clip")]) == 0
    vectors = str(folder / "clip" / "embeddings.safetensors")
    net = {"kind": "vector_transformer", "in_channels": 8, "width": 8, "depth": 1, "heads": 2}
    net["accepts"] = {"tokens": 8, "vector": {"prompt": 8}}
    encoders = {"prompt": {**TEXT, "pooled": True}}
    prior = small("shapes-prior", folder, net=net, encoders=encoders, held_out=0.3)
    unet = recipes.get("shapes-decoder").net
    unet |= {"channels": 8, "multipliers": [1], "attention": {"at": []}, "style": {"groups": 4}}
    unet |= {"accepts": {"vector": {"embedding": 8}}}
    told = {"embedding": {"kind": "vector", "width": 8}}
    decoder = small("shapes-decoder", folder, net=unet, encoders=told, held_out=0.3)
    reading = {**unet, "accepts": {"tokens": 8, "vector": {"prompt": 8}}}
    text = small("shapes-text", folder, net=reading, encoders=encoders, held_out=0.3)
    data = '{"kind": "shapes", "size": 32, "count": 60}'
    (folder / "data.json").write_text(data)
    asked = [str(text), "--data", str(folder / "data.json"), "--out", str(folder / "reads")]
    assert run(["train", *asked]) == 0
    for path, name in ((prior, "prior"), (decoder, "decoder")):
        asked = [str(path), "--data", vectors, "--out", str(folder / name)]
        assert run(["train", *asked]) == 0
    return folder


def test_an_image_text_model_is_measured_and_not_sampled(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = runs / "clip"
    assert run(["evaluate", str(clip), "--samples", "50"]) == 0
    found = json.loads((clip / "evaluation.json").read_text())
    for key in ("text_top1", "picture_top5", "caption_true", "zero_shot"):
        assert 0 <= found[key]["low"] <= found[key]["value"] <= found[key]["high"] <= 1
    assert len(found["by_noise"]) == 10 and (clip / "retrieval.png").exists()
    capsys.readouterr()
    assert run(["evaluate", str(clip), "--steps", "3"]) == 2
    assert "draws no samples" in capsys.readouterr().err
    assert run(["sample", str(clip), "--out", str(runs / "none")]) == 2
    told = capsys.readouterr().err
    assert f"--guide clip:{clip}:TEXT" in told and not (runs / "none").exists()


def test_vectors_are_the_directions_of_the_data(runs: Path) -> None:
    tensors, _ = load_tensors(runs / "clip" / "embeddings.safetensors")
    vectors = tensors["vectors"]
    assert vectors.shape == (60, 8)
    torch.testing.assert_close(vectors.norm(dim=1), torch.full((60,), 8**0.5))
    model = load(runs / "clip")
    x = data.load({"kind": "shapes", "size": 32, "count": 60}).batch(range(60)).x
    with torch.no_grad():
        own = model.denoiser.output(x, torch.zeros(60, dtype=torch.float64))
    torch.testing.assert_close(vectors, own * 8**0.5, rtol=1e-4, atol=1e-5)


def test_a_prior_tells_a_decoder_and_the_picture_can_be_drawn_again_without_it(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["sample", str(runs / "decoder"), "a red circle", "--prior", str(runs / "prior")]
    out = ["-n", "3", "--steps", "2", "--out", str(tmp_path)]
    assert run([*asked, *out]) == 0
    picture = tmp_path / "000001.png"
    assert picture.exists()
    (runs / "prior").rename(runs / "away")
    try:
        assert run(["sample", "--replay", str(picture), "--out", str(tmp_path)]) == 0
    finally:
        (runs / "away").rename(runs / "prior")
    assert "bit for bit" in capsys.readouterr().out
    # The same by hand: two models, one after the other, the vector's noise apart.
    vectors = load(runs / "prior").sample(
        3, prompt="a red circle", seed=[i ^ 1 << 61 for i in range(3)]
    )
    by_hand = load(runs / "decoder").sample(3, inputs={"embedding": vectors.tensor}, steps=2)
    from PIL import Image

    with Image.open(picture) as drawn:
        assert drawn.tobytes() == by_hand[1].tobytes()


def test_guidance_by_a_run_reaches_the_picture(runs: Path) -> None:
    from fromnoise import guidance

    model = load(runs / "decoder")
    guide = guidance.named(f"clip:{runs / 'clip'}:a red circle:3", load)
    plain, guided = (model.sample(2, steps=3, guide=g) for g in ((), guide))
    assert not torch.equal(plain.tensor, guided.tensor)
    assert guided.recipe["guide"] == [guide.text]
    # Of a model that reads prompts, the guide can go to the prompt itself.
    model, by_prompt = load(runs / "reads"), guidance.named(f"clip-prompt:{runs / 'clip'}:3", load)
    prompts = ["a red circle", "a star"]
    free, drawn = (model.sample(2, prompt=prompts, steps=2, guide=g) for g in ((), by_prompt))
    assert not torch.equal(free.tensor, drawn.tensor)
    alone = model.sample(1, prompt="a star", steps=2, seed=1, guide=by_prompt)
    torch.testing.assert_close(alone.tensor[0], drawn.tensor[1], atol=1e-4, rtol=1e-4)
    with pytest.raises(UsageError, match="needs one"):
        model.sample(1, steps=2, guide=by_prompt)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (["decoder", "x", "--prior", "{runs}/decoder"], "not told a prompt|samples of shape"),
        (["prior", "x", "--prior", "{runs}/prior"], "takes prompt"),
        (
            ["decoder", "x", "--prior", "{runs}/prior", "--input", "embedding=[1]"],
            "leave out --input",
        ),
        (["decoder", "x"], "not told a prompt"),
        (["decoder", "--guide", "clip:{runs}/decoder:x"], "does not compare pictures"),
        (["decoder", "--guide", "clip:{runs}/clip"], "not complete"),
        (["decoder", "--guide", "clip:{runs}/clip: "], "not complete"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[str], line: str
) -> None:
    import re

    given = [part.format(runs=runs) for part in asked]
    out = tmp_path / "out"
    assert run(["sample", str(runs / given[0]), *given[1:], "--steps", "2", "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert re.search(line, told) and "Traceback" not in told and not out.exists()


def test_training_says_what_cannot_be(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out = str(runs / "shapes-clip-noisy.json"), str(tmp_path / "run")
    assert run(["train", clip, "--out", out, "--train.accumulation", "2"]) == 2
    assert "cannot be split" in capsys.readouterr().err
    assert run(["train", "shapes-prior", "--out", out]) == 2
    assert "fromnoise data embed" in capsys.readouterr().err
    assert run(["data", "embed", str(runs / "decoder"), "--out", f"{out}.safetensors"]) == 2
    assert "draws samples" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
