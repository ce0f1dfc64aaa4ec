"""The autoencoder's objective: its parts by hand, its weight λ, its phases, resuming."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from training import toy

from fromnoise.codecs import CODECS, Identity
from fromnoise.core.errors import FileError, ShapeError, UsageError
from fromnoise.core.randomness import FixedNoise
from fromnoise.data import Dataset
from fromnoise.nets.perceptual import VGG16, Perceptual
from fromnoise.training import Draws, Run, Task, TrainSettings
from fromnoise.training.autoencoder import (
    AUTOENCODER,
    DISCRIMINATOR,
    SEEING,
    Reconstruction,
    autoencoder,
    hinge,
)
from fromnoise.training.perceptual import SPOILINGS, perceptual_of, spoiled
from fromnoise.training.settings import AutoencoderSettings

KL: dict[str, Any] = {
    "kind": "kl", "latent": 2, "widths": [4, 8], "groups": 4, "blocks": 1, "scaling": "measured",
    "attend": False,
}  # fmt: skip
VQ = {
    **{k: v for k, v in KL.items() if k not in ("kind", "latent")},
    "kind": "vq",
    "codebook": {"kind": "ema", "size": 16, "width": 2, "restart": 0.1},
}
JUDGE = {"kind": "patch_discriminator", "channels": 4, "layers": 1}


class Squares(Dataset):
    """Pictures 8 by 8 of one square on a ground, colours and places drawn."""

    def __init__(self, count: int = 48, dtype: torch.dtype = torch.float32) -> None:
        self.name, self.shape, self.levels, self.classes = "squares", (3, 8, 8), 256, ()
        self.labels = None
        generator = torch.Generator().manual_seed(0)
        self.x = torch.rand(count, 3, 1, 1, generator=generator).expand(-1, 3, 8, 8).clone()
        for i in range(count):
            top, left = torch.randint(5, (2,), generator=generator).tolist()
            self.x[i, :, top : top + 4, left : left + 4] = -self.x[i, :, :1, :1]
        self.x = self.x.to(dtype)

    def __len__(self) -> int:
        return len(self.x)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self.x[torch.from_numpy(indices)]


def objective(codec: dict[str, Any] = KL, **choices: Any) -> Reconstruction:
    torch.manual_seed(0)
    made = {"perceptual": "none", **choices}
    objective = autoencoder(CODECS.build(codec), AutoencoderSettings(**made))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in objective.codec.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return objective


def draws(count: int = 8) -> Draws:
    return Draws.of_step(0, 0, range(count), count)


def test_the_plain_loss_is_l1_or_l2_and_the_cost() -> None:
    batch = Squares().batch(range(8))
    noise = draws().noise.normal(torch.zeros(8, 2, 4, 4))
    for kind, power in (("l1", 1), ("l2", 2)):
        made = objective(reconstruction=kind, latent_weight=0.3)
        (phase,) = made.phases(batch, draws())
        passage = made.codec.passage(batch.x, FixedNoise([noise]))
        error = (batch.x - passage.made).abs().pow(power).mean()
        assert phase.loss.item() == pytest.approx((error + 0.3 * passage.cost.mean()).item())
        assert (phase.name, phase.group, phase.each) == (AUTOENCODER, AUTOENCODER, None)
    assert list(made.groups()) == [AUTOENCODER] and made.splits


def test_each_part_can_be_switched_off() -> None:
    batch = Squares().batch(range(8))
    full = {
        "perceptual": "small", "perceptual_start": 0, "discriminator": JUDGE, "latent_weight": 0.1,
    }  # fmt: skip
    names = {
        "all": [AUTOENCODER, DISCRIMINATOR],
        "adversarial_weight": [AUTOENCODER],
        "perceptual_weight": [AUTOENCODER, DISCRIMINATOR],
        "latent_weight": [AUTOENCODER, DISCRIMINATOR],
    }
    losses = {}
    for off, phases in names.items():
        made = objective(**full | ({} if off == "all" else {off: 0.0}))
        found = list(made.phases(batch, draws()))
        assert [phase.name for phase in found] == phases
        losses[off] = found[0].loss.item()
        assert ("perceptual" in dict(made.named_children())) == (off != "perceptual_weight")
    assert len(set(losses.values())) == len(losses)


def test_the_adaptive_weight_makes_both_gradients_equal_at_the_last_layer() -> None:
    made = objective(discriminator=JUDGE, adversarial_weight=1.0)
    x = Squares().batch(range(8)).x
    passage = made.codec.passage(x, draws().noise)
    judge = made.discriminator
    assert judge is not None
    loss, seems = made.difference(x, passage.made, 0), -made.judged(judge, passage.made).mean()
    weight = made.balance(loss, seems)
    last = made.codec.last
    a, b = (torch.autograd.grad(one, last, retain_graph=True)[0].norm() for one in (loss, seems))
    assert torch.allclose(torch.as_tensor(weight), a / (b + 1e-4))
    assert torch.allclose(weight * b, a, rtol=0.02)
    total = next(iter(made.phases(Squares().batch(range(8)), draws()))).loss
    assert total.item() == pytest.approx(
        (loss + weight * seems + 1e-6 * passage.cost.mean()).item(), rel=1e-5
    )
    plain = objective(discriminator=JUDGE, adaptive=False)
    assert plain.balance(loss, seems) == 1.0
    assert plain.splits and not made.splits
    batch_norm = objective(discriminator={**JUDGE, "norm": "batch"}, adaptive=False)
    assert not batch_norm.splits


def test_hinge_and_what_each_phase_may_change() -> None:
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.5])
    assert hinge(real, fake).item() == pytest.approx(0.5 * 0.25 + 0.5 * 0.75)
    made = objective(discriminator=JUDGE)
    first, second = made.phases(Squares().batch(range(8)), draws())
    own = [p for _, p in made.groups()[AUTOENCODER]]
    judges = [p for _, p in made.groups()[DISCRIMINATOR]]
    assert all(g is None for g in torch.autograd.grad(second.loss, own, allow_unused=True))
    found = torch.autograd.grad(first.loss, own)
    assert all(g.abs().sum() > 0 for g in found) and judges


def test_parts_begin_when_they_are_told_to() -> None:
    batch = Squares().batch(range(8))
    made = objective(
        perceptual="small", perceptual_start=2, discriminator=JUDGE, adversarial_start=3
    )
    seen = []
    for _ in range(5):
        seen.append([phase.name for phase in made.phases(batch, draws())])
        made.after_step()
    seeing, alone, both = [SEEING, AUTOENCODER], [AUTOENCODER], [AUTOENCODER, DISCRIMINATOR]
    assert seen == [seeing, seeing, alone, both, both]
    made.eval()
    with torch.no_grad():
        assert [phase.name for phase in made.phases(batch, draws())] == [AUTOENCODER]


def test_what_counts_only_later_is_tried_before_the_first_step() -> None:
    """Pictures of 8 pixels are too small for the judge of step 1000 and for what looks at 500."""
    batch = Squares().batch(range(2))
    later: dict[str, Any] = {"perceptual_start": 500, "adversarial_start": 1000}
    small = objective(discriminator={**JUDGE, "layers": 3}, **later).eval()
    looks = objective(**later)
    looks.perceptual = Perceptual(VGG16())
    for made, told in ((small, "use fewer layers"), (looks.eval(), "vgg16 takes")):
        with torch.no_grad():
            # The control: the phases of the first step know nothing of it.
            assert len(list(made.phases(batch, draws(2)))) == 1
            with pytest.raises(ShapeError, match=told):
                made.rehearse(batch, draws(2))
    fits = objective(discriminator={**JUDGE, "norm": "batch"}, perceptual="small", **later).eval()
    before = toy.digest(fits)
    with torch.no_grad():
        fits.rehearse(batch, draws(2))
    assert toy.digest(fits) == before


def test_pictures_that_are_no_multiple_of_the_factor_are_refused() -> None:
    batch = Squares().batch(range(2))
    odd = replace(batch, x=batch.x[..., :7, :6])
    assert objective().codec.passage(odd.x, draws(2).noise).made.shape != odd.x.shape
    with pytest.raises(ShapeError, match="multiple of 2"):
        objective().eval().rehearse(odd, draws(2))
    # The control: a picture that is only not square is taken.
    objective().eval().rehearse(replace(batch, x=batch.x[..., :6]), draws(2))


def test_parts_that_leave_out_what_learns_beside_are_refused(tmp_path: Path) -> None:
    named, whole = "codec.decoder.*", {"perceptual": "small", "discriminator": JUDGE}
    with pytest.raises(UsageError, match=r"phase seeing.*perceptual"):
        _run(tmp_path / "a", objective(**whole), parts=named)
    with pytest.raises(UsageError, match=r"phase discriminator.*discriminator"):
        _run(tmp_path / "a", objective(**whole), parts=f"{named},perceptual.*")
    for given, choices in ((f"{named},perceptual.*,discriminator.*", whole), (named, {})):
        made = objective(**choices)
        before = toy.digest(made.codec.encoder)  # type: ignore[arg-type]
        list(_run(tmp_path / f"{len(choices)}", made, parts=given, steps=1).train())
        assert toy.digest(made.codec.encoder) == before  # type: ignore[arg-type]
    assert not (tmp_path / "a").exists()


def test_spoiled_pictures_are_told_apart_by_what_was_done_to_them() -> None:
    x = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    changed, how, turns = spoiled(x, draws(64).noise)
    assert set(how.tolist()) == set(range(SPOILINGS)) and set(turns.tolist()) == {0, 1, 2, 3}
    for i in range(64):
        upright = torch.rot90(changed[i], -int(turns[i]), (1, 2))
        assert torch.equal(upright, x[i]) == (how[i] == 0)
    wide, _, turns = spoiled(torch.rand(32, 3, 7, 10), draws(32).noise)
    assert wide.shape == (32, 3, 7, 10) and set(turns.tolist()) == {0, 2}


def test_perceptual_networks_by_name(tmp_path: Path) -> None:
    assert perceptual_of("none", 3) is None
    small = perceptual_of({"kind": "small", "width": 4}, 1)
    assert isinstance(small, Perceptual) and any(p.requires_grad for p in small.parameters())
    net = VGG16()
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    names = [f"features.{i}.{kind}" for i in places for kind in ("weight", "bias")]
    given = dict(zip(names, net.state_dict().values(), strict=True))
    save_file({**given, "classifier.0.bias": torch.zeros(2)}, tmp_path / "vgg.safetensors")
    heads = {
        f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1)
        for i, width in enumerate((64, 128, 256, 512, 512))
    }
    save_file(heads, tmp_path / "lin.safetensors")
    files = {
        "backbone": str(tmp_path / "vgg.safetensors"),
        "heads": str(tmp_path / "lin.safetensors"),
    }
    lpips = perceptual_of({"kind": "lpips", **files}, 3)
    assert isinstance(lpips, Perceptual) and not any(p.requires_grad for p in lpips.parameters())
    x, y = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    assert torch.equal(lpips(x, y), Perceptual(net, list(heads.values()))(x, y))
    for choice, error, told in (
        ("blurry", UsageError, "unknown perceptual network"),
        ({"kind": "small", "widht": 3}, UsageError, "widht"),
        ({"kind": "lpips", "backbone": files["heads"]}, FileError, "no VGG-16"),
        ({"kind": "lpips", **files, "heads": files["backbone"]}, FileError, "no heads"),
        ({"kind": "run", "path": str(tmp_path)}, FileError, "checkpoint"),
    ):
        with pytest.raises(error, match=told):
            perceptual_of(choice, 3)
    with pytest.raises(UsageError, match="3 channels"):
        perceptual_of({"kind": "lpips", **files}, 1)


def _run(folder: Path, made: Reconstruction, data: Dataset | None = None, **choices: Any) -> Run:
    settings = {
        "steps": 12, "batch_size": 8, "warmup": 0, "checkpoint_every": 4, "validate_every": 4,
        "learning_rate": 1e-3, "ema": 0.9, **choices,
    }  # fmt: skip
    train = TrainSettings(**settings).model_dump(mode="json")
    return Run(
        folder, {"recipe": "toy", "train": train}, Task(made, data or Squares(), data or Squares(8))
    )


@pytest.mark.parametrize("codec", [KL, VQ], ids=["kl", "vq"])
def test_a_run_goes_on_bit_for_bit(codec: dict[str, Any], tmp_path: Path) -> None:
    choices = {
        "perceptual": {"kind": "small", "width": 4}, "perceptual_start": 3,
        "discriminator": JUDGE, "adversarial_start": 7, "latent_weight": 0.1,
    }  # fmt: skip
    whole = objective(codec, **choices)
    list(_run(tmp_path / "whole", whole).train())
    loop = _run(tmp_path / "half", objective(codec, **choices)).train()
    for _ in range(6):
        next(loop)
    loop.close()
    rest = objective(codec, **choices)
    events = list(_run(tmp_path / "half", rest).train())
    assert events[0].step == 5 and set(events[-1].losses) == {AUTOENCODER, DISCRIMINATOR}
    assert toy.digest(rest) == toy.digest(whole)


@pytest.mark.parametrize("codec", [KL, VQ], ids=["kl", "vq"])
def test_a_split_step_is_the_whole_one(codec: dict[str, Any], tmp_path: Path) -> None:
    states = []
    for parts in (1, 2):
        made = objective(codec, latent_weight=0.1).double()
        # In float64: biases in front of norms have no gradient but rounding, which Adam enlarges.
        run = _run(
            tmp_path / str(parts), made, Squares(16, torch.float64), steps=3, accumulation=parts,
            optimizer={"kind": "adamw", "eps": 1e-4}, checkpoint_every=0,
        )  # fmt: skip
        list(run.train())
        states.append(made.codec.state_dict())
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=1e-8), name
    if codec is VQ:
        # The codebook moved: it was told of whole batches.
        assert not torch.equal(states[0]["codebook.met"], torch.ones(16))


@pytest.mark.slow
def test_pictures_come_back_after_training(tmp_path: Path) -> None:
    made = objective(VQ, latent_weight=1.0)
    run = _run(
        tmp_path / "run",
        made,
        steps=80,
        batch_size=16,
        learning_rate=5e-3,
        checkpoint_every=0,
        validate_every=40,
    )
    losses = [event.validation for event in run.train() if event.validation is not None]
    assert losses[-1] < 0.35
    assert len(made.codec.codes(Squares().x).unique()) >= 8


def test_a_codec_without_weights_and_a_judge_of_other_pictures_are_refused() -> None:
    with pytest.raises(UsageError, match="nothing to train"):
        autoencoder(Identity(), AutoencoderSettings())
    with pytest.raises(UsageError, match="no discriminator of pictures of 3"):
        objective(discriminator={**JUDGE, "in_channels": 1})
    with pytest.raises(UsageError, match="no discriminator"):
        objective(discriminator={"kind": "unet", "channels": 32})
