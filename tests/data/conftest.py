"""What the tests of data share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared/data"


@pytest.fixture
def shared_data():
    """Folder of the real data sets, which exist beside development checkouts only."""
    if not SHARED.is_dir():
        pytest.skip("real data are absent: ../shared/data")
    return SHARED
