import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from hs3seg.data import CamVid, DigitScenes, NYUv2
from hs3seg.data.doctor import TITLES, Diagnosis, Finding, Place, examine, open_folder, open_splits
from hs3seg.data.sample import Sample
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy
from tests.conftest import shared
from tests.fabricate import faults
from tests.fabricate.zoo import CLEAN, Zoo, write_clean


class OwnReader:
    """A data set without files, whose samples do as they are told: an array of labels, or something to raise."""

    taxonomy = Taxonomy.from_names(("a", "b", "c"))

    def __init__(self, split: str, does: Sequence[object]) -> None:
        self.split, self._does = split, does

    @property
    def names(self) -> Sequence[str]:
        return [f"{self.split}{i}" for i in range(len(self._does))]

    def __len__(self) -> int:
        return len(self._does)

    def files(self, index: int) -> tuple[str, ...]:
        return (f"record {index}",)

    def read(self, index: int) -> Sample:
        what = self._does[index]
        if isinstance(what, str):
            os._exit(7)
        if isinstance(what, Exception):
            raise what
        assert isinstance(what, np.ndarray)
        pixels = torch.from_numpy(np.random.default_rng(index).integers(0, 256, (3, 20, 30)).astype(np.uint8))
        return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(torch.from_numpy(what)), self.names[index])


def labels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (2, 3)).repeat(10, 0).repeat(10, 1)


def by_kind(diagnosis: Diagnosis, kind: str) -> list[Finding]:
    return [finding for finding in diagnosis.findings if finding.kind == kind]


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return write_clean(tmp_path / "set")


def diagnose(zoo: Zoo, **options: object) -> Diagnosis:
    opened = open_folder(zoo.root, CLEAN, zoo.taxonomy)
    return examine(opened.datasets, before=opened.findings, **options)  # type: ignore[arg-type]


def test_any_number_of_workers_finds_the_same(zoo: Zoo) -> None:
    faults._leak_in_disguise(zoo)
    zoo.image("scene 009").write_bytes(b"broken")
    ticks = []
    alone, together = diagnose(zoo), diagnose(zoo, workers=2, progress=lambda: ticks.append(1))
    assert alone.to_dict() == together.to_dict()
    assert len(ticks) == sum(CLEAN.values())
    assert alone.errors >= 1


def test_what_a_reader_raises_is_a_finding() -> None:
    does = [labels(0), RuntimeError("shapes do not fit"), DataError("record 2: too old"), MemoryError(), labels(4)]
    diagnosis = examine({"train": OwnReader("train", does)})
    found = by_kind(diagnosis, "unreadable-sample")
    assert [finding.index for finding in found] == [1, 2, 3]
    assert "RuntimeError: shapes do not fit" in found[0].message
    assert found[1].message == "too old"
    assert diagnosis.statistics["train"].num_images == 2


def test_sample_that_ends_its_process_is_named_and_all_others_are_read() -> None:
    does: list[object] = [labels(i) for i in range(12)]
    does[1] = does[7] = "crash"
    ticks = []
    diagnosis = examine({"train": OwnReader("train", does)}, workers=2, progress=lambda: ticks.append(1))
    assert [finding.file for finding in by_kind(diagnosis, "fatal-sample")] == ["record 1", "record 7"]
    assert diagnosis.statistics["train"].num_images == 10
    assert len(ticks) == 12


def test_labels_that_a_reader_should_have_refused_are_found() -> None:
    outside, small = labels(1), labels(2)[:10]
    outside[4:6, 8:11] = 9
    negative = labels(3)
    negative[0, 0] = -1
    diagnosis = examine({"train": OwnReader("train", [labels(0), outside, small, negative])})
    (first, second), (size,) = by_kind(diagnosis, "unknown-id"), by_kind(diagnosis, "size-mismatch")
    assert first.place == Place(8, 4, 3, 2)
    assert second.place == Place(0, 0)
    assert size.index == 2


def test_counts_and_sizes_are_those_of_the_files(zoo: Zoo) -> None:
    diagnosis = diagnose(zoo)
    for split, count in CLEAN.items():
        masks = [zoo.labels(name, split) for name in zoo.names(split)]
        found = diagnosis.statistics[split]
        assert found.frequencies == tuple(sum(int((mask == c).sum()) for mask in masks) for c in range(5))
        assert found.images_with == tuple(sum(bool((mask == c).any()) for mask in masks) for c in range(5))
        assert found.num_ignored == sum(int((mask == 255).sum()) for mask in masks)
        assert diagnosis.sizes[split] == {(128, 96): count}


def test_place_of_a_fault_is_its_box_and_is_shown(zoo: Zoo) -> None:
    faults._unknown_id(zoo)
    diagnosis = diagnose(zoo)
    (finding,) = by_kind(diagnosis, "unknown-id")
    assert finding.place == Place(60, 40, 12, 10)
    (shown,) = diagnosis.shown
    assert shown.crop is not None
    assert shown.size == shown.mask_size == (128, 96)
    mask, crop = shown.arrays["mask"], shown.arrays["mask-crop"]
    assert (mask[40:50, 60:72] == (255, 0, 255)).all()
    x, y = 60 - shown.crop.x, 40 - shown.crop.y
    assert (crop[y : y + 10, x : x + 12] == (255, 0, 255)).all()
    assert ((crop == (255, 0, 255)).all(2)).sum() == 120


def test_nearest_class_of_an_unknown_colour_is_named(zoo: Zoo) -> None:
    faults._unknown_colour(zoo)
    (finding,) = by_kind(diagnose(zoo), "unknown-colour")
    assert "colour (225, 60, 45) at x=60, y=40 (120 such pixels) is no class; nearest: 'ball' (220, 60, 40)" in (
        finding.message
    )


def test_long_lists_are_cut_but_counted(zoo: Zoo) -> None:
    for name in zoo.names("train"):
        zoo.image(name).write_bytes(b"broken")
    diagnosis = diagnose(zoo, max_findings_per_kind=3)
    assert len(by_kind(diagnosis, "corrupt-file")) == 3
    assert diagnosis.unlisted == {("corrupt-file", "error"): 9}
    assert diagnosis.errors == 12
    assert diagnosis.exit_code() == 2


def test_diagnosis_is_plain_values_for_json(zoo: Zoo) -> None:
    faults._mask_of_another(zoo)
    faults._unknown_id(zoo)
    diagnosis = diagnose(zoo)
    values = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert values["counts"] == {"error": diagnosis.errors, "warning": diagnosis.warnings, "note": diagnosis.notes}
    assert {finding["kind"] for finding in values["findings"]} == set(values["kinds"]) <= set(TITLES)
    assert {key.split("/")[0] for key in diagnosis.pictures} == {str(n) for n in range(len(values["pictures"]))}
    assert diagnosis.exit_code() == 2


def test_every_file_without_partner_is_named_and_the_pairs_are_examined(zoo: Zoo) -> None:
    for name in ("scene 001", "scene 004"):
        zoo.mask(name).unlink()
    zoo.image("scene 006").unlink()
    zoo.image("scene 008").write_bytes(b"broken")
    diagnosis = diagnose(zoo)
    assert [Path(f.file).stem for f in by_kind(diagnosis, "image-without-mask")] == ["scene 001", "scene 004"]
    assert [Path(f.file).stem for f in by_kind(diagnosis, "mask-without-image")] == ["scene 006"]
    assert [Path(f.file).stem for f in by_kind(diagnosis, "corrupt-file")] == ["scene 008"]
    assert diagnosis.statistics["train"].num_images == 12 - 4


def test_partner_under_another_name_is_guessed(zoo: Zoo) -> None:
    zoo.mask("scene 001").rename(zoo.mask("scene 001_label"))
    (finding,) = by_kind(diagnose(zoo), "image-without-mask")
    assert "is 'scene 001_label' its partner under another name?" in finding.message


def test_folder_cut_by_seed_names_its_faults_once(zoo: Zoo, tmp_path: Path) -> None:
    root = tmp_path / "whole"
    for kind in ("images", "masks"):
        shutil.copytree(zoo.root / kind / "train", root / kind)
    (root / "masks" / "scene 002.png").unlink()
    # Also where `hs3 data init` has written the shares of the cut down.
    for layout in ({}, {"split_fractions": {"train": 0.8, "val": 0.2}}):
        opened = open_folder(root, CLEAN, zoo.taxonomy, **layout)
        assert [finding.kind for finding in opened.findings] == ["image-without-mask"]
    assert {split: len(dataset) for split, dataset in opened.datasets.items()} == {"train": 11}


def test_split_of_another_reader_that_does_not_open_becomes_findings(zoo: Zoo, tmp_path: Path) -> None:
    root = tmp_path / "camvid"
    for kind in ("", "annot"):
        source = zoo.root / ("masks" if kind else "images")
        for split in CLEAN:
            shutil.copytree(source / split, root / f"{split}{kind}")
    (root / "trainannot" / "scene 003.png").unlink()
    (root / "trainannot" / "scene 005.png").unlink()
    opened = open_splits(("train", "val", "test"), lambda split: CamVid(root, split))
    assert [(f.kind, f.split, Path(f.file).stem) for f in opened.findings] == [
        ("image-without-mask", "train", "scene 003"),
        ("image-without-mask", "train", "scene 005"),
        ("unopened-split", "test", "test"),
    ]
    assert list(opened.datasets) == ["val"]
    assert examine(opened.datasets, before=opened.findings).errors == 3


def test_data_without_files_can_be_examined() -> None:
    diagnosis = examine({"train": DigitScenes("train", 12), "val": DigitScenes("val", 4)})
    assert diagnosis.errors == 0
    assert by_kind(diagnosis, "duplicate-across-splits") == []


def test_nothing_to_examine_is_a_diagnosis_too() -> None:
    assert examine({}).to_dict()["counts"] == {"error": 0, "warning": 0, "note": 0}
    (finding,) = examine({"train": OwnReader("train", [])}).findings
    assert (finding.kind, finding.severity) == ("empty-split", "error")


def test_real_camvid_val_has_nothing_wrong() -> None:
    root = shared("camvid")
    diagnosis = examine({"val": CamVid(root, "val")}, workers=2)
    assert diagnosis.findings == ()
    assert diagnosis.statistics["val"].num_images == 101


def test_planted_mirror_in_real_frames_is_found(tmp_path: Path) -> None:
    root = shared("camvid")
    for index, image in enumerate(sorted((root / "val").iterdir())[::4]):
        mask = next((root / "valannot").glob(f"{image.stem}.*"))
        for source, kind in ((image, "images"), (mask, "masks")):
            (tmp_path / kind / "val").mkdir(parents=True, exist_ok=True)
            target = tmp_path / kind / "val" / source.name
            if kind == "masks" and index == 10:
                Image.fromarray(np.array(Image.open(source))[:, ::-1].copy()).save(target)
                planted = str(target)
            else:
                target.write_bytes(source.read_bytes())
    opened = open_folder(tmp_path, ("val",), CamVid(root, "val").taxonomy, ignore_ids=(11,))
    diagnosis = examine(opened.datasets)
    assert [finding.file for finding in by_kind(diagnosis, "mirrored-mask")] == [planted]


def test_reader_with_ids_of_its_own_is_taken_at_its_word(zoo: Zoo, tmp_path: Path) -> None:
    root = tmp_path / "nyu"
    (root / "classes40.txt").parent.mkdir()
    for kind, source, suffix in (("rgb", "images", ".jpg"), ("label40", "masks", ".png")):
        shutil.copytree(zoo.root / source / "train", root / kind)
        for path in (root / kind).iterdir():
            path.rename(path.with_name(f"{path.stem[-3:]}{suffix}"))
    for path in (root / "label40").iterdir():
        values = np.array(Image.open(path))
        ids = np.where(values == 255, 0, values + 1)
        ids[0, 100:] = 40  # the highest class: no id outside, unlike with a taxonomy's own ids
        if path.stem == "003":
            ids[40:50, 60:72] = 77
        Image.fromarray(ids.astype(np.uint8)).save(path)
    lines = [f"rgb/{n:03}.jpg label40/{n:03}.png" for n in range(12)]
    (root / "train.txt").write_text("\n".join(lines))
    diagnosis = examine({"train": NYUv2(root, "train", labels="40")})
    (finding,) = (finding for finding in diagnosis.findings if finding.severity == "error")
    assert (finding.kind, Path(finding.file).stem, finding.place) == ("unknown-id", "003", Place(60, 40, 12, 10))


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    masks = tmp_path / "masks" / "train"
    masks.mkdir(parents=True)
    (tmp_path / "images" / "train").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "train" / "x.png")
    painted = np.zeros((20, 30, 3), np.uint8)
    painted[5:15, 5:15] = 255
    Image.fromarray(painted).save(masks / "x.png")
    opened = open_folder(tmp_path, ["train"], Taxonomy(("front",), ((255, 255, 255),)))
    diagnosis = examine(opened.datasets, before=opened.findings)
    (found,) = by_kind(diagnosis, "one-class")
    assert (found.severity, found.split) == ("error", "train")
    assert "'front' is the only class" in found.message
    assert "background" in found.remedy


def test_a_list_of_images_beside_folders_is_not_read_as_pairs(zoo: Zoo) -> None:
    split = next(iter(CLEAN))
    images = sorted((zoo.root / "images" / split).iterdir())
    assert images
    (zoo.root / f"{split}.txt").write_text("".join(f"./images/{split}/{path.name}\n" for path in images))
    assert diagnose(zoo).errors == 0
    next((zoo.root / "masks" / split).iterdir()).unlink()
    assert [finding.kind for finding in diagnose(zoo).findings if finding.severity == "error"] == ["image-without-mask"]
