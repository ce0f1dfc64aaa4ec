"""What is measured of fromnoise: `python -m benchmarks [NAME …]`, or each module by itself.

`BENCHMARKS` lists them in the order they run, quickest first; those in `LONG` train many networks
and run only when they are named. What `main` of each is given are its command-line arguments; none
means its defaults.
"""

BENCHMARKS = (
    "langevin",
    "exact",
    "scheduler_overhead",
    "startup",
    "loader",
    "network_step",
    "onnx_step",
    "steps",
    "stable_diffusion",
)

LONG = (
    "optimizers",
    "ablations",
    "neighbours",
    "guidance",
    "mixing",
    "words",
    "text_guidance",
    "prior",
    "codecs",
    "latent",
    "latent_dit",
)
