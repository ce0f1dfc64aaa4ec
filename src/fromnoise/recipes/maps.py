"""Pictures drawn to a label map: channels that say of every pixel what is to be there."""

from fromnoise.data.maps import MAP, NAMES
from fromnoise.recipes.base import Recipe, SamplingSettings, recipe
from fromnoise.recipes.pictures import net
from fromnoise.training.settings import ObjectiveSettings, TrainSettings


@recipe
def maps_to_pictures() -> Recipe:
    classes = len(NAMES)
    return Recipe(
        name="maps-to-pictures",
        summary="Coloured shapes drawn where a label map has them: channel conditioning.",
        paper="Wang et al. 2022 (semantic image synthesis); Ho & Salimans 2022 (guidance)",
        data={"kind": "maps", "size": 32, "count": 12_000},
        net=net(32, 1, accepts={"channels": {MAP: classes}}),
        process={"kind": "gaussian", "schedule": {"kind": "cosine"}},
        parameterization={"kind": "v"},
        encoders={MAP: {"kind": "map", "classes": list(NAMES)}},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        train=TrainSettings(
            steps=1200,
            batch_size=64,
            learning_rate=1e-3,
            precision="bfloat16",
            validate_every=200,
            checkpoint_every=200,
            sample_every=400,
        ),
        # White is the end of the range; unclipped, what is left of the noise speckles it.
        sampling=SamplingSettings(
            sampler="dpm++2m_sde", grid="uniform", steps=20, guidance=2.0, clip=1.0
        ),
    )
