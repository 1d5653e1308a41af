from collections.abc import Callable
from pathlib import Path

import pytest

from hs3seg.config import Config, config_of_folder, describe_keys, load_config, without_other_kinds
from hs3seg.config.data import SHARED_KEYS
from hs3seg.config.sections import _ADDED_LATER
from hs3seg.errors import ConfigError

MINIMAL = 'name = "run"\n[data]\nkind = "camvid"\n[augment]\ncrop = [32, 48]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(MINIMAL)
    return path


def test_file_and_overrides_meet_in_one_config(file: Path) -> None:
    config = load_config(
        file, ["--data.root", "there", "--train.epochs=3", "--augment.resize", "64,96", "--supervision.stages", "a,b"]
    )
    assert config.data.root == "there"
    assert config.train.epochs == 3
    assert config.augment.resize == (64, 96)
    assert config.augment.crop == (32, 48)
    assert config.supervision.stages == ("a", "b")


def test_none_unsets_an_optional_value(file: Path) -> None:
    file.write_text(MINIMAL + "[supervision]\ntheta_degrees = 80\n")
    assert load_config(file).supervision.theta_degrees == 80
    assert load_config(file, ["--supervision.theta_degrees", "none"]).supervision.theta_degrees is None


def test_another_kind_of_data_leaves_out_the_keys_of_the_file_that_it_lacks(file: Path) -> None:
    file.write_text(MINIMAL.replace('"camvid"', '"nyuv2"\nroot = "there"\nclasses = 13\nlabels = "40"'))
    assert load_config(file).data.model_dump()["classes"] == 13
    config = load_config(file, ["--data.kind", "cityscapes", "--data.labels", "coarse"])
    assert (config.data.kind, config.data.root) == ("cityscapes", "there")
    assert config.data.model_dump()["labels"] == "coarse"


def test_keys_of_other_kinds_in_old_weight_files_are_dropped() -> None:
    values = {"name": "x", "data": {"kind": "camvid", "encoding": "auto", "hha_cache": "", "rooot": "y"}}
    without_other_kinds(values)
    assert values["data"] == {"kind": "camvid", "rooot": "y"}  # what no kind has stays, to be refused


def test_text_values_stay_text(file: Path) -> None:
    assert load_config(file, ["--name", "123"]).name == "123"
    assert load_config(file, ["--network.pretrained", "w.pth"]).network.pretrained == "w.pth"
    assert load_config(file, ["--network.pretrained", "true"]).network.pretrained is True


@pytest.mark.parametrize(
    ("words", "read", "expected"),
    [
        (["--arms", "hs3"], lambda c: c.arms, ("hs3",)),
        (["--arms", "none,hs3"], lambda c: c.arms, ("none", "hs3")),
        (["--data.evaluate_splits", "val"], lambda c: c.data.evaluate_splits, ("val",)),
        (["--data.evaluate_splits", "[]"], lambda c: c.data.evaluate_splits, ()),
        (["--evaluation.scales", "0.5"], lambda c: c.evaluation.scales, (0.5,)),
        (["--evaluation.crop", "none"], lambda c: c.evaluation.crop, None),
    ],
)
def test_a_list_of_one_needs_no_brackets(
    file: Path, words: list[str], read: Callable[[Config], object], expected: object
) -> None:
    assert read(load_config(file, words)) == expected


def test_a_config_is_written_whole_in_utf8(file: Path, tmp_path: Path) -> None:
    config = load_config(file, ["--name", "Straße"])
    config.save(tmp_path / "config.toml")
    assert 'name = "Straße"' in (tmp_path / "config.toml").read_text(encoding="utf-8")
    assert load_config(tmp_path / "config.toml") == config
    assert [p.name for p in tmp_path.iterdir() if p != file] == ["config.toml"]


def test_differences_are_the_keys_that_the_fingerprint_tells_apart(file: Path) -> None:
    config = load_config(file)
    other = load_config(
        file, ["--train.epochs", "7", "--augment.flip", "0.25", "--name", "other", "--data.cache", "true"]
    )
    assert config.differences(other) == ["augment.flip", "train.epochs"]
    assert config.differences(load_config(file, ["--name", "other"])) == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--data.rot", "x"], ["data.rot", "data.root"]),
        (["--train.epochs", "sixty"], ["train.epochs", "sixty", "integer"]),
        (["--train.epochs", "0"], ["train.epochs", "0", "greater than or equal to 1"]),
        (["--data.kind", "cam"], ["data.kind", "cam", "camvid"]),
        (["--augment.crop", "[1, -2]"], ["augment.crop", "-2"]),
        (["--train.epochs"], ["--train.epochs", "no value"]),
        (["stray"], ["stray", "--section.key value"]),
        (["--data.cv", "1"], ["data.cv", "'cityscapes'", "not for 'camvid'", "leave it out"]),
        (["--data.kind", "nyuv2", "--data.labels", "fine"], ["data.labels", "fine", "'40-from-0'"]),
    ],
)
def test_wrong_overrides_name_key_value_and_remedy(file: Path, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(file, overrides)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        ("name = ", ["not a TOML file"]),
        ('nmae = "x"\n' + MINIMAL, ["unknown key 'nmae'", "'name'"]),
        (MINIMAL + "[trian]\nepochs = 3\n", ["unknown key 'trian'", "'train'"]),
        (MINIMAL + "[train]\nepoch = 3\n", ["unknown key 'train.epoch'", "'train.epochs'"]),
        (MINIMAL.replace("crop = [32, 48]", ""), ["augment.crop", "missing"]),
        (MINIMAL.replace('kind = "camvid"', 'root = "x"'), ["data.kind", "missing"]),
        (MINIMAL.replace("camvid", "camvit"), ["'data.kind' = 'camvit'", "'camvid'", "'folder'"]),
        (MINIMAL.replace("[augment]", "rooot = 'x'\n[augment]"), ["unknown key 'data.rooot'", "'data.root'"]),
        (MINIMAL + '[train]\nepochs = "3"\n', ["train.epochs", "integer"]),
    ],
)
def test_wrong_files_name_file_key_and_remedy(file: Path, text: str, words: list[str]) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(file)
    for word in [str(file), *words]:
        assert word in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_byte_order_mark_and_a_folder_in_the_files_place(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_config(file).name == "run"
    with pytest.raises(ConfigError, match="is a folder; give the config file$"):
        load_config(file.parent)
    (file.parent / "hs3.toml").touch()
    with pytest.raises(ConfigError, match="is a folder; give the config file, such as .*hs3.toml"):
        load_config(file.parent)


def test_an_image_called_as_a_split_makes_none(tmp_path: Path) -> None:
    for name in ("images/test.png", "masks/test.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert config_of_folder(tmp_path).data.evaluate_splits == ("val",)
    (tmp_path / "test.txt").touch()
    assert config_of_folder(tmp_path).data.evaluate_splits == ("test",)
    (tmp_path / "images" / "val").mkdir()
    assert config_of_folder(tmp_path).data.evaluate_splits == ("val", "test")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "no.toml")


def test_saved_config_reads_back_equal(file: Path, tmp_path: Path) -> None:
    config = load_config(file, ["--augment.color_jitter", "[0.1, 0.1, 0.1, 0.0]", "--supervision.stages", "2"])
    config.save(tmp_path / "again.toml")
    assert load_config(tmp_path / "again.toml") == config


def test_fingerprint_tells_what_changes_weights_from_what_does_not(file: Path) -> None:
    base = load_config(file).fingerprint()
    for same in (
        ["--data.root", "x"],
        ["--run_dir", "y"],
        ["--data.num_workers", "3"],
        ["--train.log_steps", "1"],
        ["--online.warmup", "0.5"],  # of one arm, whose plan tells it
        ["--supervision.diagonal", "drop"],
        ["--supervision.rule", "line"],
    ):
        assert load_config(file, same).fingerprint() == base
    for other in (
        ["--seed", "1"],
        ["--data.train_images", "7"],
        ["--train.learning_rate", "0.5"],
        ["--loss.kind", "ohem"],
        ["--augment.flip", "0.0"],
        ["--supervision.diagonal", "keep"],
        ["--supervision.rule", "knee"],
    ):
        assert load_config(file, other).fingerprint() != base


def test_every_key_is_described() -> None:
    rows = list(describe_keys())
    assert {"data.root", "train.epochs", "supervision.gamma", "name"} <= {key for key, _, _ in rows}
    assert all(meaning for _, _, meaning in rows)
    assert len({(key, meaning) for key, _, meaning in rows}) == len(rows)
    shared = {f"data.{name}" for name in SHARED_KEYS}
    assert sorted(key for key, _, _ in rows if key in shared) == sorted(shared)  # once, not once per kind
    assert [meaning.split(":")[0] for key, _, meaning in rows if key == "data.labels"] == [
        "nyuv2 data",
        "cityscapes data",
        "coco data",
    ]


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_each_shipped_config_loads(path: Path) -> None:
    assert isinstance(load_config(path), Config)


def test_demo_config_loads() -> None:
    import hs3seg

    assert load_config(Path(hs3seg.__file__).parent / "demo.toml").data.kind == "digits"


def test_keys_added_later_leave_earlier_runs_what_they_were(file: Path) -> None:
    """A run that was begun by an earlier version goes on only while its fingerprint stays."""
    values = load_config(file).model_dump(mode="json")
    for section, added in _ADDED_LATER.items():
        for key, usual in added.items():
            assert values[section][key] == usual
