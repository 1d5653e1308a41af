import io
import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from fabricated_run import STAGES, fabricate, many_classes, street_taxonomy
from parsed_page import check_page
from PIL import Image

from hs3seg.analysis import SupervisionPlan, load_confusions, mean_iou
from hs3seg.errors import RunFolderError
from hs3seg.report import build_report
from hs3seg.taxonomy import Taxonomy


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_page_of_a_whole_run_is_well_formed_and_self_contained(street: Path) -> None:
    page = check_page(street / "report" / "index.html")
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == ["results", "tradeoff", "groups", "confusion", "samples", "training", "cost", "run"]
    assert "This run is not complete" not in page.text
    assert (street / "report" / "index.html").stat().st_size < 4_000_000


def test_table_of_arms_shows_the_files_numbers(street: Path) -> None:
    page = check_page(street / "report" / "index.html")
    titles = {"none": "No supervision", "deep_supervision": "Deep supervision", "hs3": "HS3"}
    for arm, title in titles.items():
        cells = page.table_row(title)[1:]
        for (text, values), (split, key) in zip(
            cells, [(s, k) for s in ("val", "test") for k in ("miou", "pixel_accuracy")], strict=True
        ):
            found = read(street / "arms" / arm / f"evaluation-{split}.json")[key]
            base = read(street / "arms" / "none" / f"evaluation-{split}.json")[key]
            assert values == [(found, f"{100 * found:.1f}")]
            if arm == "none":
                assert text == f"{100 * found:.1f}"
            else:
                assert text == f"{100 * found:.1f} {100 * (found - base):+.1f}"


def test_table_of_classes_shows_the_files_numbers(street: Path) -> None:
    page = check_page(street / "report" / "index.html")
    for which, split in enumerate(("val", "test")):
        files = [
            read(street / "arms" / arm / f"evaluation-{split}.json") for arm in ("none", "deep_supervision", "hs3")
        ]
        for name in street_taxonomy().names:
            cells = page.table_row(name, which)[2:]
            assert [cell[1][0][0] for cell in cells] == [file["iou"][name] for file in files]
        means = page.table_row("mean (mIoU)", which)[2:]
        assert [cell[1][0][0] for cell in means] == [file["miou"] for file in files]


def test_bars_are_as_long_as_the_iou_and_marks_stand_at_the_baseline(street: Path) -> None:
    page = check_page(street / "report" / "index.html")
    iou = {a: read(street / "arms" / a / "evaluation-val.json")["iou"] for a in ("none", "deep_supervision", "hs3")}
    names = street_taxonomy().names
    lengths = [a["style"] for tag, a in page.elements if tag == "i" and a.get("style", "").startswith("width")]
    marks = [a["style"] for tag, a in page.elements if tag == "b" and "style" in a]
    assert lengths[: 3 * len(names)] == [f"width:{100 * values[n]:.1f}%" for n in names for values in iou.values()]
    assert marks[: 2 * len(names)] == [f"left:{100 * iou['none'][n]:.1f}%" for n in names for _ in range(2)]


def test_stage_table_names_groups_and_miou(street: Path) -> None:
    page = check_page(street / "report" / "index.html")
    stages = read(street / "arms" / "hs3" / "evaluation-val.json")["stages"]
    row = next(row for row in page.rows if [c[0] for c in row[:2]] == ["HS3", "val"])
    for stage, (text, values) in zip(STAGES, row[2:4], strict=True):
        assert values[0][0] == stages[stage]["miou"]
        assert text.endswith(f"{stages[stage]['num_groups']} groups")


def test_cost_table_shows_training_and_inference(street: Path) -> None:
    page = check_page(street / "report" / "index.html")
    profile = read(street / "profile.json")
    row = next(
        r
        for r in page.rows
        if r[0][0] == "HS3" and len(r) == 5 and r[1][1] and r[1][1][0][0] == profile["training"]["hs3"]["gmacs"]
    )
    assert [cell[1][0][0] for cell in row[1:]] == [
        profile["training"]["hs3"]["gmacs"],
        profile["training"]["hs3"]["parameters"],
        profile["inference"]["gmacs"],
        profile["inference"]["parameters"],
    ]
    assert "+11.2 %" in row[1][0]


def test_tree_shows_iou_of_groups_from_the_merged_matrix(street: Path) -> None:
    page = check_page(street / "report" / "index.html")
    plan = SupervisionPlan.load(street / "plan.toml")
    confusions = load_confusions(street / "analysis" / "confusion.npz")
    for stage in plan.stages:
        merged = stage.grouping.merge(confusions[stage.stage])
        for number, group in enumerate(stage.grouping.groups):
            if len(group) > 1:
                iou = merged[number, number] / (merged[number].sum() + merged[:, number].sum() - merged[number, number])
                assert f"{100 * iou:.1f}" in page.text


def test_the_curves_are_there_in_numbers_and_in_the_pictures_words(street: Path) -> None:
    page = check_page(build_report(street))
    plan, analysis = SupervisionPlan.load(street / "plan.toml"), read(street / "analysis" / "analysis.json")
    label = next(a["aria-label"] for tag, a in page.elements if a.get("aria-label", "").startswith("Trade-off"))
    for number, stage in enumerate(plan.stages):
        for size, miou in analysis["stages"][stage.stage]["curve"]:
            row = next(row for row in page.rows if row and row[0][0] == str(size) and len(row) == 1 + len(plan.stages))
            assert row[1 + number][1] == [(miou, f"{100 * miou:.1f}")]
            if size == stage.grouping.num_groups:
                assert f"{stage.stage} has {100 * miou:.1f} % at its {size} groups" in label


def test_pictures_whose_names_differ_in_odd_characters_only_are_all_written(street: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(street, run)
    plan = SupervisionPlan.load(run / "plan.toml")
    names = ("enc/s2", "enc:s2")
    odd = replace(plan, stages=tuple(replace(s, stage=n) for s, n in zip(plan.stages, names, strict=True)))
    odd.save(run / "arms" / "hs3" / "plan.toml")
    page = build_report(run)
    listed = read(page.with_name("report.json"))["pictures"]
    assert {"groups-hs3-enc_s2.png", "groups-hs3-enc_s2-2.png"} <= set(listed)
    contents = [(page.parent / name).read_bytes() for name in ("groups-hs3-enc_s2.png", "groups-hs3-enc_s2-2.png")]
    assert contents[0] != contents[1]


def test_report_json_holds_the_numbers_and_the_pictures_exist(street: Path) -> None:
    report = read(street / "report" / "report.json")
    for split in ("val", "test"):
        for arm in ("none", "deep_supervision", "hs3"):
            found = read(street / "arms" / arm / f"evaluation-{split}.json")
            assert report["splits"][split][arm]["miou"] == found["miou"]
            assert report["splits"][split][arm]["iou"] == found["iou"]
    assert report["splits"]["val"]["none"]["miou_difference"] == 0
    assert report["num_groups"] == SupervisionPlan.load(street / "plan.toml").num_groups
    assert report["curves"]["stage2"] == read(street / "analysis" / "analysis.json")["stages"]["stage2"]["curve"]
    assert report["reference"]["miou"] == mean_iou(load_confusions(street / "analysis" / "confusion.npz")["final"])
    assert report["missing"] == []
    expected = {"tradeoff.png", "groups-hs3-stage2.png", "confusion-analysis-final.png", "confusion-val-hs3.png"}
    assert expected | {"loss-hs3.png", "miou-phase_one.png", "samples-test.png"} <= set(report["pictures"])
    assert {p.name for p in (street / "report").glob("*.png")} == set(report["pictures"])
    for name in report["pictures"]:
        with Image.open(street / "report" / name) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) > 40


def test_the_config_is_shown_as_it_can_be_used_again(tmp_path: Path) -> None:
    run = fabricate(tmp_path / "run")
    text = (run / "config.toml").read_text() + '\n[more]\nname = "two  spaces & <more>"  # why\n\tlast = 1\x07\n'
    (run / "config.toml").write_text(text)
    page = build_report(run).read_text()
    assert "name = &quot;two  spaces &amp; &lt;more&gt;&quot;  # why\n    last = 1\ufffd</pre>" in page


def test_names_from_files_are_escaped(tmp_path: Path) -> None:
    evil = (
        "<script>alert(1)</script>",
        'a" onload="x',
        "b & <i>c</i>",
        "</svg></style>",
        "newline\nand\x07bell",
        "日本語",
        "'",
    )
    run = fabricate(
        tmp_path / "evil",
        taxonomy=Taxonomy.from_names(evil),
        arms=("none", "hs3", "<b>arm"),
        splits=("v&<l",),
        epochs=3,
        num_samples=1,
        size=(40, 50),
    )
    page = check_page(build_report(run))
    assert "<script>alert(1)</script>" in page.text
    assert "b & <i>c</i>" in page.text
    assert "newline and\ufffdbell" in page.text
    assert "<b>arm" in page.text
    assert "v&<l" in page.text
    assert "<script" not in page.source
    assert "\x07" not in page.source
    assert all(
        name.isascii() and "<" not in name and "/" not in name
        for name in read(run / "report" / "report.json")["pictures"]
    )


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        (["config.toml"], "config.toml: not there yet"),
        (["taxonomy.toml"], "taxonomy.toml: not there yet"),
        (["taxonomy.toml", "arms", "plan.toml"], "arm hs3: not trained yet"),
        (["analysis"], "analysis/confusion.npz: not there yet"),
        (["analysis/analysis.json"], "analysis/analysis.json: not there yet"),
        (["plan.toml", "arms/hs3"], "arm hs3: not trained yet"),
        (["profile.json"], "profile.json: not there yet"),
        (["results.json", "run.json"], ""),
        (["phase_one"], ""),
        (["arms"], "arm none: not trained yet"),
        (["arms/none"], "arm none: not trained yet"),
        (["arms/hs3/evaluation-test.json"], "arms/hs3/evaluation-test.json: not there yet"),
        (["arms/hs3/plan.toml"], "arms/hs3/plan.toml: not there yet"),
        (["arms/hs3/log.jsonl", "arms/hs3/train.json"], "Not trained to the end: HS3"),
        (["arms/none/samples-val.npz", "arms/hs3/samples-val.npz", "arms/deep_supervision/samples-val.npz"], ""),
        (["arms/hs3/confusion-val.npz"], "arms/hs3/confusion-val.npz: not there yet"),
    ],
)
def test_partial_run_gives_a_page_that_says_what_is_missing(
    street: Path, tmp_path: Path, removed: list[str], said: str
) -> None:
    run = shutil.copytree(street, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    for name in removed:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = check_page(build_report(run))
    assert said in page.text
    report = read(run / "report" / "report.json")
    assert bool(report["missing"]) == ("This run is not complete" in page.text)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("arms/hs3/evaluation-val.json", b'{"miou": 0.'),
        ("arms/hs3/evaluation-val.json", b"[1, 2]"),
        ("arms/hs3/confusion-val.npz", b"PK broken"),
        ("arms/hs3/samples-val.npz", b""),
        ("arms/hs3/plan.toml", b"= broken"),
        ("analysis/confusion.npz", b"no zip"),
        ("analysis/analysis.json", b"{"),
        ("taxonomy.toml", b"\xff\xfe"),
        ("config.toml", b"a = ["),
        ("profile.json", b"null"),
    ],
)
def test_broken_file_is_named_and_the_rest_is_shown(street: Path, tmp_path: Path, name: str, content: bytes) -> None:
    run = shutil.copytree(street, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    (run / name).write_bytes(content)
    page = check_page(build_report(run))
    assert f"{name}: not readable" in page.text
    assert str(tmp_path) not in page.source
    assert "Deep supervision" in page.text


def test_half_written_log_and_losses_that_are_not_finite_do_no_harm(street: Path, tmp_path: Path) -> None:
    run = shutil.copytree(street, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    log = run / "arms" / "none" / "log.jsonl"
    bad = '{"event":"step","step":1,"epoch":0.1,"loss":NaN,"terms":{"final":NaN}}\n"text"\n{"event":"step","ep'
    log.write_text(log.read_text() + bad)
    page = check_page(build_report(run))
    assert "This run is not complete" not in page.text


def test_matrices_of_other_classes_are_left_out_and_named(street: Path, tmp_path: Path) -> None:
    run = shutil.copytree(street, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    many_classes(5).save(run / "taxonomy.toml")
    page = check_page(build_report(run))
    assert "analysis/confusion.npz: made for another number of classes than the 5 of this run" in page.text
    assert "plan.toml: made for 11 classes, this run has 5" in page.text


def test_plan_edited_by_hand_is_shown_and_said(street: Path, tmp_path: Path) -> None:
    run = shutil.copytree(street, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    other = SupervisionPlan.load(street / "arms" / "deep_supervision" / "plan.toml")
    other.save(run / "arms" / "hs3" / "plan.toml")
    page = check_page(build_report(run))
    assert "The plan differs from what the analysis proposed for stage2" in page.text
    assert "stage2: 11 groups of 11 classes" in page.text


@pytest.mark.parametrize(("arms", "plan"), [(["none", "deep_supervision"], ""), (["none", "hs3"], "mine.toml")])
def test_analysis_is_not_missing_where_the_run_needs_none(tmp_path: Path, arms: list[str], plan: str) -> None:
    run = fabricate(tmp_path / "run", arms=arms, splits=("val",), epochs=2, num_samples=1, size=(30, 40))
    config = tomllib.loads((run / "config.toml").read_text()) | {"supervision": {"plan": plan}}
    (run / "config.toml").write_text(tomli_w.dumps(config))
    shutil.rmtree(run / "analysis")
    shutil.rmtree(run / "phase_one")
    (run / "plan.toml").unlink()
    page = check_page(build_report(run))
    assert read(run / "report" / "report.json")["missing"] == []
    assert ("stage2: " in page.text) == ("hs3" in arms)


def test_absent_class_is_printed_as_absent(tmp_path: Path) -> None:
    run = fabricate(tmp_path / "run", splits=("val",), absent=("pole",), epochs=3, num_samples=1, size=(30, 40))
    page = check_page(build_report(run))
    assert [cell[0] for cell in page.table_row("pole")[1:]] == ["0", "absent", "absent", "absent"]
    assert "val has no pixel of pole" in page.text


@pytest.mark.parametrize("count", [2, 3, 40, 150])
def test_any_number_of_classes(tmp_path: Path, count: int) -> None:
    run = fabricate(
        tmp_path / "run", taxonomy=many_classes(count), splits=("val",), epochs=2, num_samples=1, size=(30, 40)
    )
    path = build_report(run)
    check_page(path)
    assert path.stat().st_size < 4_000_000


def test_out_folder_and_nothing_else_is_written(street: Path, tmp_path: Path) -> None:
    run = shutil.copytree(street, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    path = build_report(run, tmp_path / "elsewhere")
    assert path == tmp_path / "elsewhere" / "index.html"
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    again = path.read_bytes()
    build_report(run, tmp_path / "elsewhere")
    assert path.read_bytes() == again


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="does not exist"):
        build_report(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match="holds no run"):
        build_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_samples_are_inside_the_page_at_small_size(tmp_path: Path) -> None:
    run = fabricate(tmp_path / "run", splits=("val",), epochs=2, num_samples=2, size=(270, 480))
    page = check_page(build_report(run))
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == 2 * 7
    for attributes in images:
        assert attributes["alt"]
        assert (attributes["width"], attributes["height"]) == ("320", "180")
    kinds = [attributes["src"].split(";")[0] for attributes in images]
    assert kinds == (["data:image/webp"] + ["data:image/png"] * 6) * 2
    with np.load(run / "arms" / "hs3" / "samples-val.npz") as file:
        right = float((file["0/final"] == file["0/truth"])[file["0/truth"] != 255].mean())
    assert f"{100 * right:.1f} % right" in page.text
    assert Image.open(io.BytesIO((run / "report" / "samples-val.png").read_bytes())).width > 7 * 320


def test_report_never_imports_torch(street: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from hs3seg.report import build_report; from pathlib import Path;"
        f"build_report(Path({str(street)!r}), Path({str(tmp_path / 'out')!r}));"
        "print([m for m in ('torch', 'sklearn', 'matplotlib', 'timm', 'pydantic') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plan_by_the_knee_is_told_so_and_every_curve_tells_whether_it_has_one(street: Path, tmp_path: Path) -> None:
    assert "chosen (Sec. 3.1.2 of the paper)" in check_page(street / "report" / "index.html").text
    run = tmp_path / "knee"
    shutil.copytree(street, run)
    values = read(run / "analysis" / "analysis.json")
    values["reference"]["rule"] = "knee"
    count = values["reference"]["num_classes"]
    first, second = list(values["stages"])[:2]
    values["stages"][first]["curve"] = [[k, 1.0 if k <= 4 else 0.2] for k in range(2, count + 1)]
    values["stages"][second]["curve"] = [[k, 1 / k] for k in range(2, count + 1)]
    (run / "analysis" / "analysis.json").write_text(json.dumps(values))
    text = check_page(build_report(run)).text
    assert "is where its curve bends most (rule: knee)" in text
    assert "Sec. 3.1.2" not in text
    above = 100 * 0.8 * 2 / (count - 2)  # at 4, of a fall by 0.8
    assert f"4 groups, {above:.0f} points above a straight fall" in text
    assert "none: no number of groups stands out" in text
