"""Folders in memory, where there is such a disk: a killed process leaves the same, and sooner."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import child

_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def quick_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose flushes cost nothing."""
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < 2**30:
        folder = tmp_path_factory.mktemp("faults")
    else:
        folder = Path(tempfile.mkdtemp(prefix="fromnoise-faults-", dir=_MEMORY))
    child.warm(folder / "warm")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def tmp_path(quick_disk: Path) -> Iterator[Path]:
    """As pytest's own, on the quick disk."""
    folder = Path(tempfile.mkdtemp(dir=quick_disk))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
