"""`python -m benchmarks` runs what it is asked for, in order, and refuses the rest."""

import importlib
from types import ModuleType

import pytest

from benchmarks import BENCHMARKS, LONG, __main__
from fromnoise.core.errors import UsageError


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was run, none of it really."""
    names: list[str] = []

    def stand_in(module: str) -> ModuleType:
        found = ModuleType(module)
        found.main = lambda arguments: names.append(module)  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(__main__, "import_module", stand_in)
    return names


def test_all_run_in_their_order(ran: list[str]) -> None:
    __main__.main([])
    assert ran == [f"benchmarks.{name}" for name in BENCHMARKS]


def test_the_long_ones_run_when_named(ran: list[str]) -> None:
    __main__.main(list(LONG))
    assert ran == [f"benchmarks.{name}" for name in LONG]


def test_the_named_run_in_the_order_given(ran: list[str]) -> None:
    __main__.main(["steps", "exact"])
    assert ran == ["benchmarks.steps", "benchmarks.exact"]


def test_an_unknown_name_is_refused_before_anything_runs(ran: list[str]) -> None:
    with pytest.raises(UsageError, match="exact"):
        __main__.main(["exact", "exakt"])
    assert ran == []


@pytest.mark.slow  # two of them import diffusers
@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_has_a_command_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        importlib.import_module(f"benchmarks.{name}").main(["--help"])
    assert left.value.code == 0
    assert "usage" in capsys.readouterr().out
