from pathlib import Path

import pytest
from fabricated_run import fabricate

from hs3seg.report import build_report


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete fabricated run with its report; not to be changed."""
    run = fabricate(tmp_path_factory.mktemp("runs") / "street", num_samples=2, size=(60, 80))
    build_report(run)
    return run
