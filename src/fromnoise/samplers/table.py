"""Samplers by the names users know: each a constant with its reference."""

import math

from fromnoise.core.errors import UsageError, unknown
from fromnoise.samplers.ancestral import Ancestral, EulerMaruyama, ReverseDiffusion
from fromnoise.samplers.base import Sampler
from fromnoise.samplers.coefficients import Rule
from fromnoise.samplers.cold import Cold1, Cold2
from fromnoise.samplers.inversion import DDIMInverse
from fromnoise.samplers.langevin import AnnealedLangevin, Langevin
from fromnoise.samplers.masked import Unmask, UnmaskInOrder
from fromnoise.samplers.multistep import Multistep
from fromnoise.samplers.ode import AdaptiveOde
from fromnoise.samplers.singlestep import SingleStep, Stage
from fromnoise.samplers.wrappers import AncestralNoise, Churn, PredictorCorrector, WithoutNoise

DDPM = Ancestral(1.0)
"""Ho et al. 2020, algorithm 2, with variance β̃."""

DDPM_LARGE = Ancestral(1.0, "large")
"""Ho et al. 2020, algorithm 2, with variance β."""

DDPM_LEARNED = Ancestral(1.0, "learned")
"""Nichol & Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models", eq. 15."""

DDPM_OPTIMAL = Ancestral(1.0, "optimal")
"""Bao et al. 2022, "Analytic-DPM": for denoisers that know Var[x0|x_t]."""

DDPM_NO_NOISE = WithoutNoise(DDPM)
"""DDPM's mean without its noise: what comes out is blurred, which shows what the noise is for."""

DDIM = Ancestral(0.0)
"""Song, Meng & Ermon 2021, "Denoising Diffusion Implicit Models", eq. 12; η by `get`."""

DDIM_INVERSE = DDIMInverse()
"""Song, Meng & Ermon 2021, section 4.3: from data to noise, on an increasing grid."""

EULER = Multistep(Rule("eps", "linear"), 1, 1.0)
"""Euler's rule on dy/dr = ε, y = x/α, r = σ/α (Karras et al. 2022): the same step as DDIM."""

HEUN = SingleStep(
    Rule("eps", "linear"), (Stage(1.0, (0,), "linear"), Stage(1.0, (0, 1), "linear")), 2.0
)
"""Karras et al. 2022, algorithm 1: the trapezoid rule in r."""

DPM2 = SingleStep(Rule("eps", "exact"), (Stage(0.5), Stage(1.0, (1,))), 2.0)
"""The midpoint in log r, as in k-diffusion; the same as DPM-Solver-2."""

DPM_SOLVER_3 = SingleStep(
    Rule("eps", "exact"), (Stage(1 / 3), Stage(2 / 3, (0, 1)), Stage(1.0, (0, 2))), 3.0
)
"""Lu et al. 2022, "DPM-Solver", algorithm 2."""

DPMPP_1 = Multistep(Rule("x0"), 1, 1.0)
"""Lu et al. 2022, "DPM-Solver++", order 1: the same step as DDIM."""

DPMPP_2S = SingleStep(Rule("x0", "midpoint"), (Stage(0.5), Stage(1.0, (0, 1), "midpoint")), 2.0)
"""Lu et al. 2022, "DPM-Solver++", algorithm 1 with r = 1/2."""

DPMPP_3S = SingleStep(Rule("x0"), (Stage(1 / 3), Stage(2 / 3, (0, 1)), Stage(1.0, (0, 2))), 2.8)
"""DPM-Solver-3 in x0 space: order 3, of which 2.8 to 2.9 show at 64 to 256 steps."""

DPMPP_2M = Multistep(Rule("x0", "midpoint"), 2, 2.0)
"""Lu et al. 2022, "DPM-Solver++", algorithm 2."""

DPMPP_2M_SDE = Multistep(Rule("x0", "midpoint", eta=1.0), 2, 0.0)
"""SDE-DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++"), with the midpoint rule of k-diffusion."""

DPMPP_3M = Multistep(Rule("x0"), 3, 3.0, start="midpoint")
"""The exact integral of the parabola through three beliefs, with an order-2 first step.

The published DPM-Solver++(3M) takes half of the second derivative (`DPMPP_3M_PUBLISHED`).
"""

DPMPP_3M_PUBLISHED = Multistep(Rule("x0", "published"), 3, 2.0)
"""DPM-Solver++(3M) as in its authors' code, k-diffusion and diffusers: it measures order 2.

Its D2 is the second divided difference, which is half of the second derivative its factor needs.
"""

DPMPP_3M_SDE = Multistep(Rule("x0", eta=1.0), 3, 0.0)
"""The SDE form of `DPMPP_3M`, without its first step: exact where the published one takes half."""

LMS = Multistep(Rule("eps", "linear"), 4, 3.5)
"""Linear multistep of order 4 on dy/dr = ε, as in k-diffusion, with exact weights."""

PNDM = Multistep(Rule("eps", "adams"), 4, 2.0, start="runge_kutta")
"""Liu et al. 2022, "PNDM": Adams–Bashforth weights for even steps and DDIM's transfer.

The weights assume ε at even spaces of the variable it is integrated over, which no usual grid has:
of their 4 they reach order 2.
"""

PLMS = Multistep(Rule("eps", "adams"), 4, 2.0, start="heun")
"""PNDM with the improved Euler first step of latent diffusion (Rombach et al. 2022)."""

DEIS = tuple(Multistep(Rule("eps"), k, order) for k, order in ((1, 1.0), (2, 2.0), (3, 3.0)))
"""Zhang & Chen 2023, "DEIS", polynomials in log r (ρAB-DEIS has them in r, which is `LMS`)."""

UNIPC = tuple(
    Multistep(Rule("x0", "bh2"), k, order, corrector=True)
    for k, order in ((1, 2.0), (2, 3.0), (3, 3.4))
)
"""Zhao et al. 2023, "UniPC", B₂(h): the corrector raises each order by one; the third starts
with lower orders, so of its 4 about 3.4 show at 64 to 256 steps."""

UNIPC_BH1 = tuple(
    Multistep(Rule("x0", "bh1"), k, order, corrector=True)
    for k, order in ((1, 2.0), (2, 3.0), (3, 3.4))
)
"""Zhao et al. 2023, "UniPC", B₁(h) = h."""

GRADIENT_ESTIMATION = Multistep(Rule("eps", "momentum"), 2, 1.0)
"""Descent on (x − x0)/σ with momentum 2 (Permenter & Yuan 2024, "Interpreting and Improving
Diffusion Models from an Optimization Perspective")."""

SAMPLERS: dict[str, Sampler] = {
    "ddpm": DDPM,
    "ddpm_large": DDPM_LARGE,
    "ddpm_learned": DDPM_LEARNED,
    "ddpm_optimal": DDPM_OPTIMAL,
    "ddpm_no_noise": DDPM_NO_NOISE,
    "ddim": DDIM,
    "ddim_inverse": DDIM_INVERSE,
    "euler": EULER,
    "euler_a": AncestralNoise(EULER),
    "heun": HEUN,
    "edm": Churn(HEUN),
    "dpm2": DPM2,
    "dpm2_a": AncestralNoise(DPM2),
    "dpm-solver-3": DPM_SOLVER_3,
    "dpm++1": DPMPP_1,
    "dpm++2s": DPMPP_2S,
    "dpm++2s_a": AncestralNoise(DPMPP_2S),
    "dpm++3s": DPMPP_3S,
    "dpm++2m": DPMPP_2M,
    "dpm++2m_sde": DPMPP_2M_SDE,
    "dpm++3m": DPMPP_3M,
    "dpm++3m_published": DPMPP_3M_PUBLISHED,
    "dpm++3m_sde": DPMPP_3M_SDE,
    "deis1": DEIS[0],
    "deis2": DEIS[1],
    "deis3": DEIS[2],
    "unipc1": UNIPC[0],
    "unipc2": UNIPC[1],
    "unipc3": UNIPC[2],
    "unipc1_bh1": UNIPC_BH1[0],
    "unipc2_bh1": UNIPC_BH1[1],
    "unipc3_bh1": UNIPC_BH1[2],
    "lms": LMS,
    "pndm": PNDM,
    "plms": PLMS,
    "gradient_estimation": GRADIENT_ESTIMATION,
    "langevin": Langevin(),
    "annealed_langevin": AnnealedLangevin(),
    "euler_maruyama": EulerMaruyama(),
    "reverse_diffusion": ReverseDiffusion(),
    "pc": PredictorCorrector(ReverseDiffusion()),
    "ode": AdaptiveOde(),
    "cold1": Cold1(),
    "cold2": Cold2(),
    "unmask": Unmask(),
    "unmask_even": UnmaskInOrder(math.inf),
    "maskgit": UnmaskInOrder(),
}
"""Every sampler by its name."""

ALIASES = {
    "deis": "deis3",
    "unipc": "unipc2",
    "dpm-solver-1": "euler",
    "dpm-solver-2": "dpm2",
    "dpm-solver++": "dpm++2m",
    "dpm++1m": "dpm++1",
    "dpm++1s": "dpm++1",
    "predictor_corrector": "pc",
    "dopri5": "ode",
    "heun_churn": "edm",
    "ddpm_small": "ddpm",
    "cold": "cold2",
}
"""Other names of the same samplers."""


def _squash(name: str) -> str:
    """A name as it is compared: `DPM++ 2M SDE`, `dpmpp_2m_sde` and `dpm++2m_sde` are one."""
    squashed = "".join(c for c in name.lower() if c not in " _-")
    squashed = squashed.replace("dpmpp", "dpm++").removesuffix("scheduler")
    return squashed.removesuffix("ancestral") + "a" if squashed.endswith("ancestral") else squashed


_BY_SQUASHED = {_squash(name): name for name in SAMPLERS} | {
    _squash(alias): name for alias, name in ALIASES.items()
}


def get(
    name: str,
    eta: float | None = None,
    churn: float | None = None,
    snr: float | None = None,
    tolerance: float | None = None,
) -> Sampler:
    """The sampler of that name, also as A1111, k-diffusion and diffusers spell it.

    eta: how much noise is fresh: 0 to 1 for `ddim`, from 0 for the `_a` and `_sde` ones.
    churn: EDM's S_churn, from 0, for methods that remember nothing from step to step (`euler`,
    `heun`, `dpm2`, …). snr: of the corrector of `pc`. tolerance: of `ode`, relative and absolute.
    Raises UsageError for an unknown name, with the nearest, and for an option the sampler lacks.
    """
    key = _BY_SQUASHED.get(_squash(name)) if isinstance(name, str) else None
    if key is None:
        raise unknown("sampler", name, SAMPLERS)
    sampler = SAMPLERS[key]
    try:
        sampler = sampler if eta is None else sampler.with_eta(eta)
        sampler = sampler if churn is None else sampler.with_churn(churn)
        sampler = sampler if snr is None else sampler.with_snr(snr)
        return sampler if tolerance is None else sampler.with_tolerance(tolerance)
    except UsageError as error:
        raise UsageError(f"sampler {key!r}: {error}") from None
