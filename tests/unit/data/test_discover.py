import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hs3seg.data import FolderDataset
from hs3seg.data.discover import Proposal, propose_taxonomy
from hs3seg.data.init_files import write_init
from hs3seg.errors import DataError
from hs3seg.taxonomy import Taxonomy
from tests.conftest import shared


def folder(root: Path, masks: list[Any], suffix: str = ".png", **options: Any) -> Path:
    """A folder of images/ and masks/, one mask per array or picture."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for number, array in enumerate(masks):
        mask = array if isinstance(array, Image.Image) else Image.fromarray(np.asarray(array))
        mask.save(root / "masks" / f"{number:02}{suffix}", **options)
        Image.new("RGB", mask.size, (9, 9, 9)).save(root / "images" / f"{number:02}.jpg")
    return root


def ids(*values: int, dtype: type = np.uint8) -> np.ndarray:
    return np.repeat(np.array([values], dtype), 8, 0)


def proposed(root: Path, **options: Any) -> Proposal:
    return propose_taxonomy(root, **options)[0]


def values_of(proposal: Proposal) -> list[Any]:
    return [found.value for found in proposal.classes]


def read_all(root: Path, config: Path, taxonomy: Path) -> list[np.ndarray]:
    """Every mask of every split, by the keys of a written config."""
    data = tomllib.loads(config.read_text(encoding="utf-8"))["data"]
    splits = [data.pop("train_split"), *data.pop("evaluate_splits")]
    assert (data.pop("kind"), data.pop("num_workers"), Path(data.pop("root"))) == ("folder", 1, root.resolve())
    data.pop("taxonomy", None)
    read = []
    for split in splits:
        dataset = FolderDataset(root, split, Taxonomy.load(taxonomy), **data)
        read += [dataset.read(index).mask.numpy() for index in range(len(dataset))]
    return read


def test_ids_with_shares_and_numbers_of_files(tmp_path: Path) -> None:
    proposal = proposed(folder(tmp_path, [ids(0, 0, 1, 255), ids(0, 0, 0, 2), ids(0, 1, 1, 255)]))
    assert values_of(proposal) == [0, 1, 2]
    assert [found.share for found in proposal.classes] == [6 / 12, 3 / 12, 1 / 12]
    assert [found.num_files for found in proposal.classes] == [3, 2, 1]
    assert proposal.ignored == {255: 2 / 12}
    assert proposal.taxonomy.names == ("class_0", "class_1", "class_2")
    assert (proposal.taxonomy.ignore_index, proposal.size, proposal.num_masks) == (255, (8, 4), 3)


@pytest.mark.parametrize(
    ("mask", "dtype", "classes", "ignored", "data"),
    [
        ((0, 255), np.uint8, [0, 255], [], {"ids": [0, 255]}),
        ((0, 127, 255), np.uint8, [0, 127, 255], [], {"ids": [0, 127, 255]}),
        ((0, 1, 255), np.uint8, [0, 1], [255], {}),
        ((1, 2, 3), np.uint8, [1, 2, 3], [], {"ids": [1, 2, 3]}),
        ((0, 1, 3), np.uint8, [0, 1, 2, 3], [], {}),
        ((0, 40, 80), np.uint8, [0, 40, 80], [], {"ids": [0, 40, 80]}),
        ((0, 1, 65535), np.uint16, [0, 1], [65535], {"ignore_ids": [65535]}),
        ((0, 1, -1), np.int32, [0, 1], [-1], {"ignore_ids": [-1]}),
        ((7, 1000), np.uint16, [7, 1000], [], {"ids": [7, 1000]}),
        ((255, 255), np.uint8, [255], [], {"ids": [255]}),
    ],
)
def test_guesses_of_classes_and_of_what_is_ignored(
    tmp_path: Path, mask: tuple[int, ...], dtype: type, classes: list[int], ignored: list[int], data: dict[str, Any]
) -> None:
    suffix = ".tif" if dtype is np.int32 else ".png"
    root = folder(tmp_path, [ids(*mask, dtype=dtype)] * 5, suffix)
    proposal = proposed(root)
    assert values_of(proposal) == classes
    assert list(proposal.ignored) == ignored
    assert {key: proposal.data[key] for key in proposal.data if key in ("ids", "ignore_ids")} == data
    written = write_init(root)
    for labels in read_all(root, written.config, written.taxonomy):  # what was guessed can be read
        expected = [255 if value in ignored else classes.index(value) for value in mask]
        assert labels[0].tolist() == expected


def test_colours_are_classes_and_little_black_is_void(tmp_path: Path) -> None:
    table = np.array([(200, 0, 0), (0, 200, 0), (0, 0, 200), (0, 0, 0)], np.uint8)
    root = folder(tmp_path, [table[ids(*[0] * 10, *[1] * 6, *[2] * 4, 3)]] * 5)
    proposal = proposed(root)
    assert values_of(proposal) == [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    assert proposal.taxonomy.colours == ((200, 0, 0), (0, 200, 0), (0, 0, 200))
    assert proposal.ignored == {(0, 0, 0): 1 / 21}
    written = write_init(root)
    assert read_all(root, written.config, written.taxonomy)[0][0].tolist() == [0] * 10 + [1] * 6 + [2] * 4 + [255]


def test_much_black_is_a_class(tmp_path: Path) -> None:
    table = np.array([(0, 0, 0), (255, 255, 255)], np.uint8)
    proposal = proposed(folder(tmp_path, [table[ids(0, 0, 1)]] * 5))
    assert values_of(proposal) == [(0, 0, 0), (255, 255, 255)]
    assert any("Black is a class" in note for note in proposal.notes)
    assert any("ids saved as colours" in note for note in proposal.notes)


def palette(mask: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(mask, mode="P")
    image.putpalette([value for colour in colours for value in colour])
    return image


def test_palette_colours_are_taken_over_if_all_files_agree(tmp_path: Path) -> None:
    one = palette(ids(0, 1, 2), (1, 2, 3), (9, 0, 0), (0, 9, 0))
    assert proposed(folder(tmp_path / "a", [one] * 3)).taxonomy.colours == ((1, 2, 3), (9, 0, 0), (0, 9, 0))
    other = palette(ids(0, 1, 2), (1, 2, 3), (0, 9, 0), (9, 0, 0))
    proposal = proposed(folder(tmp_path / "b", [one, other, one]))
    assert any(note.startswith("WRONG: id 1 has the palette colour (9, 0, 0)") for note in proposal.notes)
    assert len(set(proposal.taxonomy.colours)) == 3


def test_jpeg_masks_are_said_and_their_colours_put_together(tmp_path: Path) -> None:
    table = np.array([(200, 0, 0), (0, 200, 0), (250, 250, 250)], np.uint8)
    mask = table[np.kron(np.array([[0, 1], [2, 0]]), np.ones((40, 40), int))]
    proposal = proposed(folder(tmp_path, [mask] * 3, ".jpg", quality=90))
    assert len(proposal.classes) == 3
    for found, expected in zip(sorted(values_of(proposal)), sorted(map(tuple, table.tolist())), strict=True):
        assert np.abs(np.subtract(found, expected)).max() < 16
    assert any(note.startswith("WRONG: 3 masks are JPEG") for note in proposal.notes)


def test_smoothed_masks_are_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = np.array([(200, 0, 0), (0, 0, 200), (40, 220, 40)], np.uint8)
    masks = [
        Image.fromarray(table[rng.integers(0, 3, (6, 6))]).resize((150, 150), Image.Resampling.BILINEAR)
        for _ in range(2)
    ]
    proposal = proposed(folder(tmp_path, masks))
    assert any(note.startswith("WRONG: the masks have") and "smooth" in note for note in proposal.notes)


def test_broken_and_odd_masks_are_said_and_the_others_read(tmp_path: Path) -> None:
    root = folder(tmp_path, [ids(0, 1)] * 5)
    (root / "masks" / "00.png").write_bytes(b"no picture")
    Image.new("RGB", (2, 8), (1, 1, 1)).save(root / "masks" / "01.png")
    proposal = proposed(root)
    assert proposal.num_masks == 3
    assert any(note.startswith("WRONG: 1 masks cannot be read") and "00.png" in note for note in proposal.notes)
    assert any(
        note.startswith("WRONG: most masks hold ids, but 1 do not") and "01.png" in note for note in proposal.notes
    )


def test_images_in_the_place_of_masks_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 60000, (30, 30)).astype(np.uint16) for _ in range(3)]
    with pytest.raises(DataError, match=r"masks, e.g. .*00.png, hold .* at most 200 can be classes"):
        proposed(folder(tmp_path, noise))


def test_workers_do_not_change_the_result_and_progress_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    root = folder(tmp_path, [rng.integers(0, 4, (9, 9)).astype(np.uint8) for _ in range(7)])
    told: list[tuple[int, int]] = []
    alone = proposed(root, progress=lambda done, count: told.append((done, count)))
    assert told == [(done, 7) for done in range(1, 8)]
    assert proposed(root, num_workers=2) == alone


def test_written_files_can_be_used_at_once(tmp_path: Path) -> None:
    root = folder(tmp_path / "my data é", [ids(0, 1, 2, 255)] * 5)
    written = write_init(root)
    assert (written.taxonomy, written.config) == (root / "taxonomy.toml", root / "hs3.toml")
    assert "[[class]]  # id 1 in the files: 25 % of the pixels, in 5 of 5 masks" in written.taxonomy.read_text()
    values = tomllib.loads(written.config.read_text(encoding="utf-8"))
    assert values["name"] == "my-data-é"
    assert values["augment"]["crop"] == [32, 32]
    assert len(read_all(root, written.config, written.taxonomy)) == 5
    assert json.loads(json.dumps(written.to_dict()))["classes"][1] == {
        "name": "class_1",
        "value": 1,
        "share": 0.25,
        "files": 5,
    }


def test_nothing_is_overwritten_without_being_told(tmp_path: Path) -> None:
    root = folder(tmp_path, [ids(0, 1)] * 5)
    for name in ("taxonomy.toml", "hs3.toml"):
        (root / name).write_text("mine")
        with pytest.raises(DataError, match=rf"{name}' is already there.*--overwrite"):
            write_init(root)
        assert sorted(p.name for p in root.glob("*.toml")) == [name]
        assert (root / name).read_text() == "mine"
        write_init(root, overwrite=True)
        assert (root / name).read_text() != "mine"
        for path in root.glob("*.toml"):
            path.unlink()


def test_files_may_be_written_elsewhere(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", [ids(0, 1)] * 5)
    written = write_init(root, tmp_path / "t" / "classes.toml", tmp_path / "c" / "run.toml")
    assert not list(root.glob("*.toml"))
    data = tomllib.loads(written.config.read_text())["data"]
    assert Taxonomy.load(Path(data["taxonomy"])).num_classes == 2
    with pytest.raises(DataError, match="cannot be both"):
        write_init(root, tmp_path / "x.toml", tmp_path / "x.toml")
    with pytest.raises(DataError, match=r"cannot be written .*--out"):
        write_init(root, root / "images" / "00.jpg" / "t.toml", tmp_path / "y.toml")


def test_only_one_split_is_said(tmp_path: Path) -> None:
    folder(tmp_path, [ids(0, 1)])
    for name in ("images", "masks"):
        (tmp_path / name).rename(tmp_path / "x")
        (tmp_path / name).mkdir()
        (tmp_path / "x").rename(tmp_path / name / "train")
    assert any(note.startswith("WRONG: 'train' is the only split") for note in proposed(tmp_path).notes)


def test_real_camvid(tmp_path: Path) -> None:
    root = shared("camvid")
    written = write_init(root, tmp_path / "taxonomy.toml", tmp_path / "hs3.toml")
    assert written.proposal.num_masks == 701
    assert values_of(written.proposal) == list(range(12))  # 11 classes, and void as 11
    assert sum(found.share for found in written.proposal.classes) == pytest.approx(1)
    assert written.proposal.splits == ("train", "val", "test")
