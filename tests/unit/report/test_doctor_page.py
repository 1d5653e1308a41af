import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parsed_page import check_page

from hs3seg.report import doctor_pictures
from hs3seg.report.doctor import verdict, write_doctor_page


def finding(kind: str, severity: str, file: str, **more: Any) -> dict[str, Any]:
    values = {"kind": kind, "severity": severity, "split": "train", "file": file, "place": None}
    return values | {"message": f"{kind} was found", "remedy": "mend it"} | more


def diagnosis(**more: Any) -> dict[str, Any]:
    """Two classes; 3 train images in two sizes, 1 val image; one find of each severity; a picture of the first."""
    values = {
        "counts": {"error": 1, "warning": 1, "note": 1},
        "findings": [
            finding("unknown-id", "error", "/data/set/a.png", place={"x": 30, "y": 20, "width": 6, "height": 4}),
            finding("specks", "warning", "/data/set/b.png"),
            finding("rare-class", "note", "/data/set/c.png"),
        ],
        "unlisted": [],
        "kinds": {"unknown-id": "Id that is no class", "specks": "Label noise", "rare-class": "Very rare class"},
        "classes": [{"name": "sky", "colour": [1, 2, 3]}, {"name": "sea", "colour": [4, 5, 6]}],
        "splits": {
            "train": {
                "num_images": 3,
                "num_ignored_pixels": 50,
                "classes": {"sky": {"pixels": 30, "images": 2}, "sea": {"pixels": 20, "images": 1}},
                "sizes": {"80x60": 2, "40x30": 1},
            },
            "val": {
                "num_images": 1,
                "num_ignored_pixels": 0,
                "classes": {"sky": {"pixels": 10, "images": 1}, "sea": {"pixels": 0, "images": 0}},
                "sizes": {"80x60": 1},
            },
        },
        "pictures": [
            {
                "finding": 0,
                "name": "a",
                "size": [80, 60],
                "mask_size": [80, 60],
                "crop": {"x": 10, "y": 0, "width": 64, "height": 48},
            }
        ],
    }
    return values | more


def pictures() -> dict[str, np.ndarray]:
    whole, cut = np.full((60, 80, 3), 90, np.uint8), np.full((48, 64, 3), 90, np.uint8)
    return {"0/image": whole, "0/mask": whole, "0/image-crop": cut, "0/mask-crop": cut, "0/other": whole}


def test_page_is_self_contained_and_shows_every_find(tmp_path: Path) -> None:
    page = check_page(write_doctor_page(diagnosis(), tmp_path, pictures(), "my set"))
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == ["error", "warning", "note", "classes", "sizes"]
    for text in ("Id that is no class", "specks was found", "x 30, y 20", "mend it", "/data/set", "my set"):
        assert text in page.text
    assert len([tag for tag, _ in page.elements if tag == "img"]) == 5
    assert json.loads((tmp_path / "findings.json").read_text()) == diagnosis()


def test_histograms_show_the_counts(tmp_path: Path) -> None:
    page = check_page(write_doctor_page(diagnosis(), tmp_path, pictures()))
    assert [values[0][0] for _, values in page.table_row("sky")[1:]] == [0.6, 1.0]
    assert [values[0][0] for _, values in page.table_row("sea")[1:]] == [0.4, 0.0]
    assert "absent" in page.table_row("sea")[2][0]
    assert "50.0 %" in page.table_row("no class")[1][0]
    assert [values[0][0] for _, values in page.table_row("80 \u00d7 60")[1:]] == [2, 1]
    lengths = [a["style"] for tag, a in page.elements if tag == "i" and a.get("style", "").startswith("width")]
    assert lengths == [f"width:{w:.1f}%" for w in (60, 100, 40, 0, 100, 50, 50, 0)]


def test_place_is_framed_where_it_is() -> None:
    tile = doctor_pictures._tile(
        "mask", "mask", pictures()["0/mask"], diagnosis()["pictures"][0], diagnosis()["findings"][0]
    )
    marked = np.argwhere((np.asarray(tile.image) != 90).any(2))  # three times as large: 80 pixels become 240
    (top, left), (bottom, right) = marked.min(0), marked.max(0)
    assert 52 <= top < 60 < 72 <= bottom <= 80
    assert 82 <= left < 90 < 108 <= right <= 116
    inside = np.asarray(tile.image)[62:71, 92:107]
    assert (inside == 90).all()


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ((1, 1, 1), "Training will stop at 1 error: id that is no class."),
        ((0, 2, 1), "Training will run, but look at 2 warnings: label noise."),
        ((0, 0, 1), "No fault was found in the 4 images."),
    ],
)
def test_verdict_says_the_worst(counts: tuple[int, int, int], sentence: str) -> None:
    values = diagnosis(counts=dict(zip(("error", "warning", "note"), counts, strict=True)))
    assert verdict(values) == sentence


def test_names_from_files_are_escaped_and_long_lists_are_folded(tmp_path: Path) -> None:
    evil = [
        finding("unknown-id", "error", f"<script>{i}</script>", message='a" onload="x', remedy=f"<b>{i}")
        for i in range(30)
    ]
    values = diagnosis(findings=evil, pictures=[], unlisted=[{"kind": "unknown-id", "severity": "error", "count": 7}])
    page = check_page(write_doctor_page(values, tmp_path, {}, "<i>set"))
    assert "<script>29</script>" in page.text
    assert "22 more of this kind" in page.text
    assert "7 more of this kind are counted" in page.text
    assert "<i>set" in page.text


def test_nothing_that_could_be_opened_gives_a_page(tmp_path: Path) -> None:
    values = diagnosis(
        counts={"error": 0, "warning": 0, "note": 0}, findings=[], kinds={}, classes=[], splits={}, pictures=[]
    )
    assert "There is no image to look at." in check_page(write_doctor_page(values, tmp_path, {})).text


def test_page_is_written_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, json; from pathlib import Path; from hs3seg.report.doctor import write_doctor_page;"
        f"write_doctor_page(json.loads({json.dumps(diagnosis())!r}), Path({str(tmp_path)!r}), {{}});"
        "print([m for m in ('torch', 'hs3seg.data') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
