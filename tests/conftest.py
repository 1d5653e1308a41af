import os
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(os.environ.get("HS3_SHARED", Path(__file__).parents[2] / "shared"))


def shared(*parts: str) -> Path:
    """A path of the shared real data; the test is skipped where it is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real data '{'/'.join(parts)}' is not beside this checkout (set HS3_SHARED to where it is)")
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
