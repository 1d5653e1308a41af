import shutil
from pathlib import Path

import pytest

from hs3seg.data.doctor import Diagnosis, examine, open_folder
from tests.fabricate.faults import FAULTS, Fault
from tests.fabricate.zoo import CLEAN, Zoo, write_clean


def diagnose(zoo: Zoo, workers: int = 0) -> Diagnosis:
    opened = open_folder(zoo.root, CLEAN, zoo.taxonomy)
    return examine(opened.datasets, before=opened.findings, workers=workers)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean(tmp_path_factory.mktemp("zoo") / "clean").root


@pytest.mark.parametrize("colours", [False, True])
def test_clean_set_gives_no_finding_at_all(clean: Path, tmp_path: Path, colours: bool) -> None:
    zoo = Zoo(Path(shutil.copytree(clean, tmp_path / "clean set")))
    if colours:
        zoo.colour()
    diagnosis = diagnose(zoo)
    assert diagnosis.findings == ()
    assert diagnosis.exit_code(strict=True) == 0


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name.replace(" ", "-") for fault in FAULTS])
def test_planted_fault_is_found(clean: Path, tmp_path: Path, fault: Fault) -> None:
    zoo = Zoo(Path(shutil.copytree(clean, tmp_path / "set")))
    file = str(fault.plant(zoo))
    diagnosis = diagnose(zoo)
    loud = [finding for finding in diagnosis.findings if finding.severity != "note" or finding.kind == fault.kind]
    found = [finding for finding in loud if finding.kind == fault.kind]
    assert found, [(finding.kind, finding.message) for finding in diagnosis.findings]
    assert {finding.severity for finding in found} == {fault.severity}
    assert file in found[0].file
    assert {finding.kind for finding in loud} - {fault.kind} <= fault.also
    assert all(finding.message and finding.remedy for finding in diagnosis.findings)
    assert diagnosis.exit_code() == (2 if fault.severity == "error" else 0)
    assert diagnosis.exit_code(strict=True) == (0 if fault.severity == "note" else 2)
