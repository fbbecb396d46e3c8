"""Fixtures that several unit tests use; each imports what it needs, so that tests without torch start fast.

In: nothing. Out: data sets and checkpoints in temporary folders.
Read next: `tests/doubles/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.doubles.checkpoints import Released
    from xwam.checkpoints.bundle import Bundle


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of three episodes that a test may change."""
    from tests.doubles.recordings import write_data

    return write_data(tmp_path)


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same data set, shared by tests that only read it."""
    from tests.doubles.recordings import write_data

    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A whole model in the release's layout, with random weights."""
    from tests.doubles.checkpoints import tiny_bundle

    return tiny_bundle()


@pytest.fixture
def released(bundle: Bundle, tmp_path: Path) -> Released:
    """The folder of a released experiment, and a function that rewrites its container."""
    from tests.doubles.checkpoints import write_released

    return write_released(bundle, tmp_path)
