import re
from pathlib import Path

import pytest

from hs3seg.analysis import SupervisionPlan
from hs3seg.builders.evaluation import make_protocol
from hs3seg.data.planted import planted_grouping, planted_taxonomy
from hs3seg.engine.protocol import PRESETS
from hs3seg.errors import ConfigError
from hs3seg.pipeline.reproduce import STUDIES
from hs3seg.pipeline.reproduce.plans import same_training
from hs3seg.pipeline.reproduce.settings import (
    DRY,
    check_start,
    choose_settings,
    config_folder,
    own_words,
    setting_config,
)
from hs3seg.pipeline.reproduce.studies import find_study, find_version
from hs3seg.pipeline.reproduce.study import Setting, Study, Version
from hs3seg.taxonomies.camvid import CAMVID11
from hs3seg.taxonomies.cityscapes import CITYSCAPES
from hs3seg.taxonomies.nyuv2 import NYU40
from tests.conftest import shared

CONFIGS = Path(__file__).parents[3] / "configs"
TAXONOMIES = {"camvid": CAMVID11, "cityscapes": CITYSCAPES, "nyuv2": NYU40, "planted": planted_taxonomy(2)}


def versions() -> list[tuple[str, Study, Version]]:
    return [
        (f"{study.name}-{kind}", study, version)
        for study in STUDIES.values()
        for kind, version in (("small", study.small), ("full", study.full))
        if version is not None
    ]


def settings() -> dict[str, Setting]:
    return {f"{name}-{s.name}": s for name, _, version in versions() for s in version.settings}


@pytest.mark.parametrize(("name", "study", "version"), versions())
def test_every_row_points_to_a_training_of_the_study(name: str, study: Study, version: Version) -> None:
    trained = {setting.name: setting.names or ("hs3",) for setting in version.settings}
    protocols = {setting.name: setting.protocols for setting in version.settings}
    for row in version.rows:
        assert set(row.paper) <= set(study.columns), name
        if row.setting:
            assert row.arm in trained[row.setting]
            assert not row.protocol or row.protocol in protocols[row.setting]
    assert set(study.sweep) <= {arm for arms in trained.values() for arm in arms} or not study.sweep


@pytest.mark.parametrize("name", settings())
def test_every_setting_has_a_config_and_its_plan_by_hand_fits(name: str) -> None:
    setting = settings()[name]
    for words in ((), DRY):
        config = setting_config(setting, CONFIGS, words)
        names = [variant.name for variant in setting.variants]
        assert len({*setting.arms, *names}) == len(setting.names)
        assert all(re.fullmatch(r"[a-z0-9.-]+", variant) for variant in names)
    assert ("manual" in setting.arms) == bool(config.supervision.manual_plan)
    if config.supervision.manual_plan:
        SupervisionPlan.load(Path(config.supervision.manual_plan)).check(TAXONOMIES[config.data.kind].names)
    # What is trained must be of this setting alone: a folder that two share must hold one recipe.
    same = [other for other in settings().values() if other.name == setting.name]
    prints = {setting_config(other, CONFIGS, ()).fingerprint() for other in same}
    assert len(prints) == 1


def test_the_planted_plan_is_the_truth() -> None:
    plan = SupervisionPlan.load(CONFIGS / "studies" / "planted-plan.toml")
    assert [stage.grouping for stage in plan.stages] == [planted_grouping(kind, 2) for kind in ("local", "global")]
    assert [stage.gamma for stage in plan.stages] == [0.4, 0.4]


def test_the_papers_numbers_are_those_of_its_text() -> None:
    text = shared("paper", "hs3-paper.txt").read_text()
    printed = [line.split("\t") for line in text.splitlines() if "\t" in line]
    for name in ("table1", "table2", "table3", "table4"):
        study = STUDIES[name]
        assert study.full is not None
        columns = len(study.columns)
        rows = [[row.paper[c] for c in study.columns if c in row.paper] for row in study.full.rows if row.paper]
        for row in rows:
            found = [line[-columns:] for line in printed if [v for v in line[-columns:] if v != "-"] == row]
            assert found, (name, row)
    full = STUDIES["table5"].full
    assert full is not None
    thetas = [
        [r.title.removeprefix("\u03b8 = "), r.paper["K 1"], r.paper["K 2"], r.paper["mIoU"]] for r in full.rows[:6]
    ]
    assert thetas == [line for line in printed if re.fullmatch(r"\d+\u00b0", line[0])]
    table6 = STUDIES["table6"].full
    assert table6 is not None
    kinds = [line[-1] for line in printed if line[0] in ("None", "DS", "HS3") and len(line) == 3]
    assert [row.paper["mIoU"] for row in table6.rows if row.paper] == kinds


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match=r"unknown study 'table7'.*table"):
        find_study("table7")
    with pytest.raises(ConfigError, match="small version only; add --small"):
        find_version(STUDIES["gamma"], small=False)
    with pytest.raises(ConfigError, match="this study has nyuv2-w18-ocr, nyuv2-w48"):
        choose_settings(find_version(STUDIES["table1"], small=False), "w48")
    with pytest.raises(ConfigError, match="--configs DIR"):
        config_folder("nowhere")


def test_rows_of_settings_left_out_keep_the_papers_numbers() -> None:
    version = find_version(STUDIES["table1"], small=False)
    chosen = choose_settings(version, "nyuv2-w48")
    assert [setting.name for setting in chosen.settings] == ["nyuv2-w48"]
    assert [row.paper for row in chosen.rows] == [row.paper for row in version.rows]
    assert {row.setting for row in chosen.rows} == {"", "nyuv2-w48"}


def test_equal_plans_share_a_training(tmp_path: Path) -> None:
    plan = SupervisionPlan.load(CONFIGS / "studies" / "camvid-manual-plan.toml")
    assert same_training(tmp_path, "theta-75", plan) == "theta-75"
    for arm in ("deep_long", "theta-50"):
        (tmp_path / arm).mkdir()
        plan.save(tmp_path / arm / "plan.toml")
    assert same_training(tmp_path, "theta-75", plan) == "theta-50"  # not what was trained longer
    one = SupervisionPlan(plan.taxonomy_names, plan.stages[:1], plan.name)
    assert same_training(tmp_path, "theta-75", one) == "theta-75"
    (tmp_path / "theta-75").mkdir()
    plan.save(tmp_path / "theta-75" / "plan.toml")
    assert same_training(tmp_path, "theta-75", plan) == "theta-75"  # begun already


def test_an_override_may_be_for_one_setting_alone() -> None:
    words = ["--a.b", "1", "--w18.train.epochs=3", "--w18-ocr.network.pretrained", "f.pth", "--c.d=2"]
    assert own_words("w18", ["w18", "w18-ocr"], words) == ["--a.b", "1", "--train.epochs=3", "--c.d=2"]
    assert own_words("w18-ocr", ["w18", "w18-ocr"], words) == ["--a.b", "1", "--network.pretrained", "f.pth", "--c.d=2"]
    assert own_words("hms", ["hms"], ["--last"]) == ["--last"]


def test_networks_whose_start_weights_no_library_has_are_not_trained_without() -> None:
    for study, name in (("table2", "nyuv2-sagate"), ("table3", "cityscapes-wrn38")):
        version = find_version(STUDIES[study], small=False)
        setting = next(setting for setting in version.settings if setting.name == name)
        with pytest.raises(ConfigError, match=f"{name}.network.pretrained FILE"):
            check_start(setting, setting_config(setting, CONFIGS, ()), ())
        for value in ("false", "weights.pth"):
            words = ["--network.pretrained", value]
            check_start(setting, setting_config(setting, CONFIGS, words), words)
    for study in STUDIES.values():  # all others have theirs from timm, or are small
        for setting in (study.full or study.small).settings:
            config = setting_config(setting, CONFIGS, ())
            assert config.network.pretrained or setting.starts_from or study.full is None


def test_sagate_is_looked_at_as_its_code_does() -> None:
    setting = next(s for s in find_version(STUDIES["table2"], small=False).settings)
    single = setting_config(setting, CONFIGS, ())
    assert make_protocol(single.evaluation) == PRESETS["sagate"]
    (words,) = setting.protocols.values()
    assert make_protocol(setting_config(setting, CONFIGS, words).evaluation) == PRESETS["sagate_multi_scale"]
