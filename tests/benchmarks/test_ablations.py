"""The ablations: each variant is one change that can be trained; the arithmetic of the table."""

import math

import pytest

from benchmarks import ablations
from fromnoise.core.errors import UsageError
from fromnoise.nets import build
from fromnoise.training.runner import differences

ONE = {
    "linear schedule": {"process.schedule.kind"},
    "min-SNR weighting": {"objective.weighting"},
    "P2 weighting": {"objective.weighting"},
    "self-conditioning": {"objective.self_conditioning", "net.accepts.channels"},
    "no averaging": {"train.ema"},
    "no attention": {"net.attention.at", "net.attention.heads", "net.attention.middle"},
    "pixel shuffle": {"net.style.up"},
}


@pytest.mark.parametrize("name", ablations.CHANGES)
def test_a_variant_changes_one_thing_and_can_be_built(name: str) -> None:
    base, recipe = (ablations.variant(n, 10, 0) for n in (ablations.BASE, name))
    changed = differences(base.model_dump(mode="json"), recipe.model_dump(mode="json"))
    assert set(changed) == ONE.get(name, set())
    build(recipe.net, device="meta")


def test_variants_do_not_share_what_they_change() -> None:
    for name in ablations.CHANGES:
        ablations.variant(name, 10, 0)
    again = ablations.variant(ablations.BASE, 10, 0)
    assert again.net["style"] == {"groups": 8} and "channels" not in again.net["accepts"]
    with pytest.raises(UsageError, match="did you mean no attention"):
        ablations.variant("no atention", 10, 0)


def test_a_mean_has_its_standard_error_and_a_difference_is_paired() -> None:
    assert ablations.spread([1.0, 2.0, 3.0]) == (2.0, pytest.approx(1 / math.sqrt(3)))
    assert math.isnan(ablations.spread([1.0])[1])
    base = [{"frechet_distance": v} for v in (1.0, 5.0, 9.0)]
    other = [{"frechet_distance": v + 0.5} for v in (1.0, 5.0, 9.0)]
    assert ablations.against(other, base, "frechet_distance") == (0.5, 0.0)
    assert "+0.500 ± 0.000" in ablations.row(
        "other", [o | dict.fromkeys(ablations.MEASURES[1:], 0.0) for o in other], base
    )


@pytest.mark.slow
def test_it_measures_two_variants_in_little(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    asked = ["base", "no averaging", "--steps", "3", "--seeds", "2", "--samples", "50"]
    ablations.main([*asked, "--workers", "1", "--results", str(tmp_path)])
    assert "no averaging" in capsys.readouterr().out
    assert (tmp_path / "ablations.json").exists()
