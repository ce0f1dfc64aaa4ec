"""What the runs that are killed share: a folder, and all that training imports."""

from pathlib import Path

import pytest
from faults import child


@pytest.fixture(scope="session", autouse=True)
def quick_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in memory, where there is such a disk: a killed process leaves the same there."""
    folder = tmp_path_factory.mktemp("faults")
    child.warm(folder / "warm")
    return folder
