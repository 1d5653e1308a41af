import subprocess
import sys
from importlib.metadata import version

import pytest

import hs3seg


def test_exported_names_are_sorted_and_exist() -> None:
    assert hs3seg.__all__ == sorted(hs3seg.__all__)
    assert all(getattr(hs3seg, name) is not None for name in hs3seg.__all__)
    assert set(hs3seg.__all__) <= set(dir(hs3seg))


def test_every_package_exports_sorted_existing_names() -> None:
    import hs3seg.analysis
    import hs3seg.data
    import hs3seg.engine
    import hs3seg.networks
    import hs3seg.nn
    import hs3seg.pipeline

    for room in ("analysis", "data", "engine", "networks", "nn", "pipeline"):
        module = getattr(hs3seg, room)
        key = [(not name.isupper(), not name[0].isupper(), name) for name in module.__all__]
        assert key == sorted(key), room
        assert all(hasattr(module, name) for name in module.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = hs3seg.nonsense


def test_importing_the_package_and_its_analysis_needs_no_torch() -> None:
    script = "import hs3seg, sys; hs3seg.analyze; hs3seg.Taxonomy; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_version_is_the_distributions() -> None:
    assert hs3seg.__version__ == version("hs3seg")
