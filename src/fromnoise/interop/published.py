"""Published models by name: network, layout of the file, and how what the network says is read.

Their pages give command lines, not files of configuration; the names are those of
`fn.nets.build`, and `Flags.diffusion` of a training run of one's own stands for the same facts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from fromnoise.core.config import validated
from fromnoise.core.errors import UsageError, unknown
from fromnoise.interop.layout import Order
from fromnoise.model import Defaults
from fromnoise.nets import CLASSIFIERS, FLAGS, PRESETS, ClassifierFlags, Flags

Config = dict[str, Any]
Program = Literal["guided-diffusion", "score-sde", "dit"]

_ROUNDS = Defaults(sampler="ddpm", grid="linspace", steps=250, clip=1.0)
"""250 ancestral steps, evenly spaced, x0 clipped: how the pages of both OpenAI models sample."""


@dataclass(frozen=True)
class Diffusion:
    """How a network is read: its process and parameterization, and whether it says a variance."""

    process: Config
    parameterization: Config
    learned_variance: bool = False
    defaults: Defaults = field(default_factory=Defaults)


@dataclass(frozen=True)
class Published:
    """A published model. `why_not` says why it is a network only, where it is."""

    name: str
    net: Config
    program: Program
    order: Order
    diffusion: Diffusion | None
    size: int
    why_not: str = ""


def published(name: str) -> Published:
    """A published model by name. UsageError for one that is not known."""
    if name not in MODELS:
        raise unknown("published model", name, MODELS)
    return MODELS[name]()


def steps(
    count: int,
    schedule: str,
    learned_variance: bool,
    rescaled: bool = False,
    predicts: Literal["eps", "x0"] = "eps",
) -> Diffusion:
    """A diffusion of so many steps with a "linear" or "cosine" schedule.

    rescaled: the network is told the index as if there were 1000 steps, k · 1000/T, as
    improved-diffusion does by default. The linear schedule is that of DDPM at 1000 steps, its β
    times 1000/T otherwise.
    """
    betas = {"beta_start": 0.1 / count, "beta_end": 20.0 / count}
    named: Config = {"kind": schedule, "steps": count, **(betas if schedule == "linear" else {})}
    if schedule not in ("linear", "cosine"):
        raise unknown("noise schedule", schedule, ["linear", "cosine"])
    # The index is k = t·T − 1; rescaled it is 1000·t − 1000/T.
    clock = {"clock_scale": 1000.0, "clock_shift": 1.0 - 1000.0 / count}
    told: Config = clock if rescaled else {"clock_scale": float(count)}
    return Diffusion(
        {"kind": "gaussian", "schedule": named},
        {"kind": predicts, "clock": "index", **told},
        learned_variance,
        _ROUNDS,
    )


_T4000 = {"iddpm-cifar10": True, "iddpm-64": True, "iddpm-64-cond": False}
"""Trained with 4000 steps and the cosine schedule → whether they are told a rescaled index."""


def _openai(name: str, flags: Flags) -> Published:
    if name in _T4000:
        diffusion = steps(4000, "cosine", True, rescaled=_T4000[name])
    elif name == "iddpm-64-256":
        diffusion = steps(4000, "linear", True)
    else:
        diffusion = steps(1000, "cosine" if name == "adm-64" else "linear", True)
    return from_flags(name, flags, diffusion)


def from_flags(name: str, flags: Flags, diffusion: Diffusion) -> Published:
    """A model of improved-diffusion or guided-diffusion from its flags."""
    why_not = ""
    if flags.small_size is not None:
        why_not = "it enlarges a smaller picture, which a model here cannot be told yet"
    return Published(
        name,
        flags.config(),
        "guided-diffusion",
        flags.order,
        diffusion,
        flags.image_size,
        why_not,
    )


def _classifier(name: str, flags: ClassifierFlags) -> Published:
    why_not = "it is a classifier, which does not draw pictures"
    net = flags.config()
    return Published(name, net, "guided-diffusion", flags.order, None, flags.image_size, why_not)


_VP = Diffusion(
    {"kind": "gaussian", "schedule": {"kind": "vp", "beta_min": 0.1, "beta_max": 20.0}},
    {"kind": "eps", "clock": "time", "clock_scale": 999.0},
)
# The same network on another process; its σ and α are not those of a preserved variance.
_SUB_VP = Diffusion(
    {"kind": "gaussian", "schedule": {"kind": "sub_vp", "beta_min": 0.1, "beta_max": 20.0}},
    {"kind": "eps", "clock": "time", "clock_scale": 999.0, "inputs": "as_is"},
)
# σ from 0.01 to 50 on pictures in [0, 1] is twice that on [−1, 1], where the network is told
# log σ less log 2; and it takes x as it is, not at unit variance.
_VE = Diffusion(
    {"kind": "gaussian", "schedule": {"kind": "ve", "sigma_min": 0.02, "sigma_max": 100.0}},
    {
        "kind": "score",
        "clock": "log_ratio",
        "clock_scale": 1.0,
        "clock_shift": -math.log(2.0),
        "inputs": "as_is",
    },
)


_SCORE_SDE = {
    "ddpm++": ("ddpm++", _VP),
    "ddpm++-deep": ("ddpm++-deep", _VP),
    "ddpm++-sub-vp": ("ddpm++", _SUB_VP),
    "ddpm++-deep-sub-vp": ("ddpm++-deep", _SUB_VP),
    "ncsn++": ("ncsn++", _VE),
    "ncsn++-deep": ("ncsn++-deep", _VE),
}
"""Models of score_sde in continuous time → their network and how it is read."""


def _score_sde(name: str) -> Published:
    net, diffusion = _SCORE_SDE[name]
    return Published(name, PRESETS[net](), "score-sde", "legacy", diffusion, 32)


def _dit(name: str) -> Published:
    why_not = "it draws latents, and the autoencoder that makes pictures of them is not in the file"
    net = PRESETS[name]()
    return Published(name, net, "dit", "legacy", steps(1000, "linear", True), net["size"], why_not)


_LATENT = {
    "ldm-celebahq": (64, 0.0195),
    "ldm-churches": (32, 0.0155),
    "ldm-imagenet": (64, 0.0195),
    "ldm-imagenet-f8": (32, 0.0195),
    "ldm-text2img": (32, 0.012),
    "ldm-text2img-256": (64, 0.0195),
    "ldm-layout2img": (64, 0.0205),
    "ldm-super-resolution": (64, 0.0155),
    "ldm-inpainting": (64, 0.0205),
    "ldm-semantic": (64, 0.0205),
}
"""U-Nets of latent diffusion → the size of their latents and the last β, as they were trained."""


def _latent(name: str) -> Published:
    """A U-Net of latent diffusion by itself; a whole model in one file is opened as such."""
    size, last = _LATENT[name]
    why_not = "it draws latents, and the autoencoder that makes pictures of them is not in the file"
    first = 0.00085 if name == "ldm-text2img" else 0.0015
    schedule: Config = {"kind": "scaled_linear", "beta_start": first, "beta_end": last}
    diffusion = Diffusion(
        {"kind": "gaussian", "schedule": schedule},
        {"kind": "eps", "clock": "index", "clock_scale": 1000.0},
        defaults=Defaults(sampler="ddim", grid="leading", steps=50),
    )
    return Published(name, PRESETS[name](), "guided-diffusion", "legacy", diffusion, size, why_not)


def _later(make: Callable[..., Published], *given: Any) -> Callable[[], Published]:
    return lambda: make(*given)


MODELS: dict[str, Callable[[], Published]] = {
    **{name: _later(_openai, name, flags) for name, flags in FLAGS.items()},
    **{name: _later(_classifier, name, flags) for name, flags in CLASSIFIERS.items()},
    **{name: _later(_score_sde, name) for name in _SCORE_SDE},
    **{name: _later(_dit, name) for name in PRESETS if name.startswith("dit-")},
    **{name: _later(_latent, name) for name in _LATENT},
}
"""Published models whose files can be read, by name."""

# Flags of the published scripts that do not change what the weights mean.
_BESIDE = {
    "use_fp16", "use_checkpoint", "timestep_respacing", "use_ddim", "batch_size", "num_samples",
    "use_kl", "rescale_learned_sigmas", "sigma_small", "model_path", "lr", "num_heads_upsample",
    "clip_denoised", "microbatch", "schedule_sampler", "data_dir",
}  # fmt: skip


def from_command_line(text: str) -> Published:
    """The model of a command line `--image_size 64 --num_channels 128 …` of the published scripts.

    The flags are those of `Flags`, and diffusion_steps (1000), noise_schedule (linear),
    rescale_timesteps (False; improved-diffusion's own default is True), predict_xstart (False).
    Raises UsageError for a flag that is not known, or twice there.
    """
    words = text.split()
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        raise UsageError(f"flags are pairs `--name value`; got {text[:100]!r}")
    names = [word.removeprefix("--") for word in words[::2]]
    given = dict(zip(names, words[1::2], strict=True))
    if len(given) < len(names):
        raise UsageError("a flag is given twice; keep one of them")
    count = given.pop("diffusion_steps", "1000")
    if not count.isdecimal() or not 1 <= int(count) <= 100_000:
        raise UsageError(f"diffusion_steps {count!r} is no number of steps")
    schedule = given.pop("noise_schedule", "linear")
    rescaled = _truth(given.pop("rescale_timesteps", "False"))
    predicts: Literal["eps", "x0"] = "x0" if _truth(given.pop("predict_xstart", "no")) else "eps"
    if "large_size" in given:
        given["image_size"] = given.pop("large_size")
    kept = {name: value for name, value in given.items() if name not in _BESIDE}
    flags = validated(Flags, kept, "--flags")
    diffusion = steps(int(count), schedule, flags.learn_sigma, rescaled, predicts)
    return from_flags("flags", flags, diffusion)


def _truth(text: str) -> bool:
    if text.lower() in ("true", "yes", "1", "t", "y"):
        return True
    if text.lower() in ("false", "no", "0", "f", "n"):
        return False
    raise UsageError(f"{text!r} is neither True nor False")
