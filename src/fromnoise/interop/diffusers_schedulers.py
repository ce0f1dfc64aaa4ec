"""The schedulers of diffusers as a process, a parameterization and sampling defaults.

What diffusers keeps in one scheduler are four things here: the schedule of the noise, what the
network's output means, the sampler, and the times it visits.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from fromnoise import samplers
from fromnoise.core.config import Settings
from fromnoise.core.errors import FileError, UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.interop.diffusers_nets import Config, checked
from fromnoise.model import Defaults
from fromnoise.processes import Gaussian
from fromnoise.samplers import SAMPLERS
from fromnoise.schedules import SCHEDULES, DiscreteSchedule

_Beta = Annotated[float, Field(gt=0, le=1)]
_SIGMA_MIN = "sigma_min"


class SchedulerSettings(Settings):
    """The keys of all schedulers that are read, with the values there is something here for.

    diffusers itself passes over the keys a class does not have, so each may stand in any file.
    """

    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] = 1000
    beta_start: _Beta | None = None
    beta_end: _Beta | None = None
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"] = "linear"
    trained_betas: tuple[_Beta, ...] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    variance_type: str | None = None
    clip_sample: bool | None = None
    clip_sample_range: Annotated[float, Field(gt=0)] = 1.0
    thresholding: Literal[False] = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    timestep_spacing: Literal["leading", "trailing", "linspace"] | None = None
    steps_offset: Annotated[int, Field(ge=0)] = 0
    set_alpha_to_one: bool | None = None
    skip_prk_steps: bool = False
    solver_order: Literal[1, 2, 3] = 2
    solver_type: str | None = None
    algorithm_type: str | None = None
    predict_x0: Literal[True] = True
    lower_order_final: bool = True
    euler_at_final: Literal[False] = False
    disable_corrector: tuple[()] = ()
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    use_karras_sigmas: bool | None = None
    use_exponential_sigmas: bool | None = None
    use_lu_lambdas: bool | None = None
    use_beta_sigmas: Literal[False] | None = None
    use_flow_sigmas: Literal[False] | None = None
    use_dynamic_shifting: Literal[False] | None = None
    flow_shift: float | None = None
    time_shift_type: str | None = None
    interpolation_type: Literal["linear", "log_linear"] = "linear"
    timestep_type: Literal["discrete"] = "discrete"
    sigma_min: None = None
    sigma_max: None = None
    lambda_min_clipped: Annotated[float, Field(allow_inf_nan=True)] | None = None
    # Of files written by the first versions.
    tensor_format: str | None = None


@dataclass(frozen=True)
class Reading:
    """What a scheduler says: configurations of our parts, and how to sample."""

    process: Config
    parameterization: Config
    defaults: Defaults


@dataclass(frozen=True)
class Kind:
    """One class of schedulers: its sampler, and where its defaults differ.

    steps: what its pipeline takes. short: of its spacings, one index more is laid and the last
    left out. rounded: whether evenly spaced indices are whole. alpha_to_one: whether the last
    step ends at the data, where no key says so, rather than at index 0.
    """

    sampler: Callable[[SchedulerSettings], str | None]
    steps: int = 50
    spacing: str = "linspace"
    short: bool = False
    rounded: bool = True
    alpha_to_one: bool = True
    clips: bool = False
    betas: tuple[float, float] = (1e-4, 0.02)
    options: tuple[str, ...] = field(default=("variance_type",))


def _ddpm(them: SchedulerSettings) -> str | None:
    return _VARIANCES.get(them.variance_type or "fixed_small")


def _pndm(them: SchedulerSettings) -> str:
    return "plms" if them.skip_prk_steps else "pndm"


def _dpm_solver(them: SchedulerSettings) -> str | None:
    if (them.solver_type or "midpoint") != "midpoint":
        return None
    return _DPM.get((them.algorithm_type or "dpmsolver++", them.solver_order))


def _unipc(them: SchedulerSettings) -> str | None:
    forms = {"bh2": "", "bh1": "_bh1"}
    form = forms.get(them.solver_type or "bh2")
    return None if form is None else f"unipc{them.solver_order}{form}"


def _deis(them: SchedulerSettings) -> str | None:
    known = (them.solver_type or "logrho", them.algorithm_type or "deis") == ("logrho", "deis")
    return f"deis{them.solver_order}" if known else None


_VARIANCES = {
    "fixed_small": "ddpm",
    "fixed_small_log": "ddpm",
    "fixed_large": "ddpm_large",
    "fixed_large_log": "ddpm_large",
    "learned_range": "ddpm_learned",
}
_DPM = {
    ("dpmsolver++", 1): "dpm++1",
    ("dpmsolver++", 2): "dpm++2m",
    ("dpmsolver++", 3): "dpm++3m_published",
    ("sde-dpmsolver++", 2): "dpm++2m_sde",
}
_SOLVER = ("algorithm_type", "solver_order", "solver_type")
KINDS: dict[str, Kind] = {
    "DDPMScheduler": Kind(_ddpm, 1000, "leading", clips=True),
    "DDIMScheduler": Kind(lambda _: "ddim", 50, "leading", clips=True),
    "PNDMScheduler": Kind(_pndm, 50, "leading", alpha_to_one=False),
    "DPMSolverMultistepScheduler": Kind(_dpm_solver, 20, short=True, options=_SOLVER),
    "UniPCMultistepScheduler": Kind(_unipc, 20, short=True, options=_SOLVER),
    "DEISMultistepScheduler": Kind(_deis, 20, short=True, alpha_to_one=False, options=_SOLVER),
    "EulerDiscreteScheduler": Kind(lambda _: "euler", rounded=False),
    "EulerAncestralDiscreteScheduler": Kind(lambda _: "euler_a", rounded=False),
    "HeunDiscreteScheduler": Kind(lambda _: "heun", rounded=False, betas=(0.00085, 0.012)),
    "LMSDiscreteScheduler": Kind(lambda _: "lms", rounded=False),
}
"""The classes of schedulers that are read."""

_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def read(raw: Mapping[str, Any], where: str) -> Reading:
    """The parts a scheduler_config.json describes.

    raw: its content; where: its path, for errors.
    Raises FileError for a class that is not read or an option there is nothing here for, naming
    the key and the value.
    """
    name = str(raw.get("_class_name"))
    if name not in KINDS:
        raise FileError(f"{where}: the scheduler {name} is not read; these are: {', '.join(KINDS)}")
    kind = KINDS[name]
    them: SchedulerSettings = checked(SchedulerSettings, raw, where)
    sampler = kind.sampler(them)
    if sampler is None:
        given = ", ".join(f"{key} {getattr(them, key)!r}" for key in kind.options)
        raise FileError(f"{where}: there is no sampler for {name} with {given}")
    steps = them.num_train_timesteps
    schedule = _schedule(them, kind, where)
    if kind.short:
        _check_range(them, schedule, where)
    grid, options = _grid(them, kind)
    clip = kind.clips and them.clip_sample is not False
    return Reading(
        {"kind": "gaussian", "schedule": schedule},
        {
            "kind": _PREDICTIONS[them.prediction_type],
            "clock": "index",
            "clock_scale": float(steps),
        },
        Defaults(
            sampler=sampler,
            grid=grid,
            steps=min(kind.steps, steps),
            grid_options=options,
            clip=them.clip_sample_range if clip else None,
        ),
    )


def _schedule(them: SchedulerSettings, kind: Kind, where: str) -> Config:
    count = them.num_train_timesteps
    start, end = them.beta_start or kind.betas[0], them.beta_end or kind.betas[1]
    schedule: Config
    if them.trained_betas is not None:
        if len(them.trained_betas) != count:
            raise FileError(
                f"{where}: trained_betas has {len(them.trained_betas)} values and "
                f"num_train_timesteps is {count}"
            )
        schedule = {"kind": "betas", "betas": list(them.trained_betas)}
    elif them.beta_schedule == "squaredcos_cap_v2":
        schedule = {"kind": "cosine", "steps": count}
    else:
        schedule = {"kind": them.beta_schedule, "steps": count}
        schedule |= {"beta_start": start, "beta_end": end}
    if them.rescale_betas_zero_snr:
        return {"kind": "zero_terminal_snr", "schedule": schedule}
    return schedule


def _check_range(them: SchedulerSettings, schedule: Config, where: str) -> None:
    """FileError where the grid would leave out the noisiest times, as no grid here does."""
    least = them.lambda_min_clipped
    if least is None or not math.isfinite(least):
        return
    alpha, sigma = SCHEDULES.build(schedule).at(1.0)
    if alpha < sigma * math.exp(least):
        raise FileError(
            f"{where}: lambda_min_clipped {least:g} leaves out times of this schedule, which is "
            "not read; null takes all of them"
        )


def _grid(them: SchedulerSettings, kind: Kind) -> tuple[str, Config]:
    """The name of the grid and what its function is told."""
    options: Config = {}
    to_data = them.set_alpha_to_one if them.set_alpha_to_one is not None else kind.alpha_to_one
    if not to_data or them.final_sigmas_type == _SIGMA_MIN:
        options["end"] = 1.0 / them.num_train_timesteps
    if them.use_karras_sigmas:
        return "karras", options
    if them.use_exponential_sigmas or them.use_lu_lambdas:
        return "log_snr", options
    spacing = them.timestep_spacing or kind.spacing
    if spacing == "leading" and them.steps_offset:
        options["offset"] = them.steps_offset
    if spacing != "trailing" and kind.short:
        options["short"] = True
    if spacing == "linspace" and not kind.rounded:
        options["rounded"] = False
    return spacing, options


_CLASSES: dict[str, tuple[str, Config]] = {
    "ddpm": ("DDPMScheduler", {"variance_type": "fixed_small"}),
    "ddpm_large": ("DDPMScheduler", {"variance_type": "fixed_large"}),
    "ddpm_learned": ("DDPMScheduler", {"variance_type": "learned_range"}),
    "ddim": ("DDIMScheduler", {"set_alpha_to_one": True}),
    "dpm++1": ("DPMSolverMultistepScheduler", {"solver_order": 1}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {"solver_order": 2}),
    "dpm++3m_published": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "dpm++2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc1": ("UniPCMultistepScheduler", {"solver_order": 1}),
    "unipc2": ("UniPCMultistepScheduler", {"solver_order": 2}),
    "unipc3": ("UniPCMultistepScheduler", {"solver_order": 3}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": False, "set_alpha_to_one": True}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}),
}
_TO_ONE = ("DDIMScheduler", "PNDMScheduler")
_NAMED = {"linear": "linear", "scaled_linear": "scaled_linear"}
_SPACED = ("leading", "trailing", "linspace")


def write(
    denoiser: NetworkDenoiser, defaults: Defaults, splits: bool = False
) -> tuple[Config, list[str]]:
    """The scheduler_config.json of a model's process and defaults, and notes for its user.

    splits: whether the pipeline itself takes a learned variance off and leaves it out, as
    DiTPipeline does. A sampler that diffusers does not have becomes its nearest, and the notes say
    so. Raises UsageError for a process or a reading of the network that no scheduler has.
    """
    schedule = _discrete(denoiser)
    notes: list[str] = []
    wanted = samplers.get(defaults.sampler)
    name = next(name for name, sampler in SAMPLERS.items() if sampler is wanted)
    if name not in _CLASSES:
        name = "ddpm" if wanted.stochastic else "dpm++2m"
        notes.append(f"diffusers has no {defaults.sampler}; {name} is written in its place")
    if splits and name == "ddpm_learned":
        notes.append("DiTPipeline leaves the learned variance out; ddpm is written in its place")
        name = "ddpm"
    elif denoiser.learned_variance and not splits and name != "ddpm_learned":
        notes.append(f"with a learned variance only DDPMScheduler will do; it replaces {name}")
        name = "ddpm_learned"
    kind, options = _CLASSES[name]
    config: Config = {"_class_name": kind, "num_train_timesteps": len(schedule.betas)}
    config |= _betas(schedule)
    config["prediction_type"] = _prediction(denoiser)
    config |= options
    if KINDS[kind].clips:
        config["clip_sample"] = defaults.clip is not None
        config["clip_sample_range"] = defaults.clip or 1.0
    elif defaults.clip is not None:
        notes.append(f"{kind} does not clip; this model clips to ±{defaults.clip:g}")
    if "end" in defaults.grid_options:
        # The last step ends at index 0, not at the data: one of two keys says so, by class.
        config |= (
            {"set_alpha_to_one": False} if kind in _TO_ONE else {"final_sigmas_type": _SIGMA_MIN}
        )
    spaced, more = _spacing(defaults, KINDS[kind])
    return config | spaced, notes + more


def _discrete(denoiser: NetworkDenoiser) -> DiscreteSchedule:
    """The schedule of a discrete Gaussian process whose network is told its indices, or error."""
    process, reading = denoiser.process, denoiser.parameterization
    if not isinstance(process, Gaussian) or not isinstance(process.schedule, DiscreteSchedule):
        raise UsageError(
            "diffusers' pipelines need a discrete schedule (linear, scaled_linear, cosine, …) of "
            f"Gaussian noise; this model's process is {process.config}"
        )
    steps = len(process.schedule.betas)
    if reading.clock != "index" or reading.clock_scale != steps or reading.clock_shift:
        raise UsageError(
            f"diffusers tells a network the index from 0 to {steps - 1}; this one is told "
            f"{reading.clock} · {reading.clock_scale:g} + {reading.clock_shift:g}"
        )
    return process.schedule


def _prediction(denoiser: NetworkDenoiser) -> str:
    kind = denoiser.parameterization.config["kind"]  # type: ignore[attr-defined]
    for theirs, ours in _PREDICTIONS.items():
        if ours == kind:
            return theirs
    known = ", ".join(_PREDICTIONS.values())
    raise UsageError(f"diffusers has no network that predicts {kind}; it has {known}")


def _betas(schedule: DiscreteSchedule) -> Config:
    """The betas by name where diffusers has one, and otherwise written out."""
    config = dict(getattr(schedule, "config", {}))
    kind = config.get("kind")
    if kind in _NAMED:
        ends = {key: config[key] for key in ("beta_start", "beta_end")}
        return {"beta_schedule": kind, **ends}
    if kind == "cosine" and (config["offset"], config["max_beta"]) == (0.008, 0.999):
        return {"beta_schedule": "squaredcos_cap_v2"}
    return {"beta_schedule": "linear", "trained_betas": schedule.betas.tolist()}


def _spacing(defaults: Defaults, kind: Kind) -> tuple[Config, list[str]]:
    """The options for a model's grid, and a note where they are not quite the same."""
    grid, options = defaults.grid, defaults.grid_options
    if grid == "uniform":
        return {"timestep_spacing": "trailing"}, []
    if grid not in _SPACED:
        # It has karras and log-SNR levels, but tells the network rounded indices of them, and fails
        # where two round to one.
        note = f"diffusers tells no whole indices on a grid like {grid}; trailing is in its place"
        return {"timestep_spacing": "trailing"}, [note]
    same = bool(options.get("short")) == kind.short or grid == "trailing"
    notes = [] if same else [f"diffusers lays its {grid} indices otherwise for this scheduler"]
    return {"timestep_spacing": grid, "steps_offset": int(options.get("offset", 0))}, notes
