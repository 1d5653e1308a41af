"""The paper's tables and figures: its numbers, its settings, and their small versions.

Numbers are as printed in S. Borse et al., "HS3: Learning with Proper Task Complexity in Hierarchically Supervised
Semantic Segmentation", BMVC 2021. What it leaves open is in docs/reproduce.md.
"""

from collections.abc import Sequence
from dataclasses import replace

from hs3seg.pipeline.reproduce.study import Row, Setting, Study, Variant, Version

CITY, NYU = (1024, 2048), (480, 640)
"""Sizes that the paper's GMACs are of."""
CORE = ("none", "deep_supervision", "hs3")
CONTROLS = (*CORE, "random")
LIGHTER = Variant("fuse-lighter", lighter=True)

CAMVID = Setting("camvid-small", "studies/camvid-small.toml", title="CamVid")
CAMVID_OCR = Setting("camvid-small-ocr", "studies/camvid-small-ocr.toml")
NYU_SMALL = Setting("nyuv2-small", "studies/nyuv2-small.toml", title="NYU-Depth-v2")
NYU_SMALL_OCR = Setting("nyuv2-small-ocr", "studies/nyuv2-small-ocr.toml")
NYU_OCR = Setting("nyuv2-w18-ocr", "nyuv2-hrnet-w18-ocr.toml", size=NYU)
NYU_W48 = Setting("nyuv2-w48", "nyuv2-hrnet-w48.toml", size=NYU)
CITY_OCR = Setting("cityscapes-w18-ocr", "cityscapes-hrnet-w18-ocr.toml", size=CITY)
CITY_W18 = Setting("cityscapes-w18", "cityscapes-hrnet-w18.toml", size=CITY)
CITY_WRN38 = Setting(
    "cityscapes-wrn38",
    "cityscapes-deeplabv3plus-wrn38.toml",
    size=CITY,
    starts_from="the WRN38 that the InverseForm code starts from",
)
CITY_HMS = Setting("cityscapes-hms", "cityscapes-hrnet-w48-ocr-hms.toml", size=CITY)

THETAS = (0, 50, 75, 80, 85, 90)
_THETA_ROWS = {
    0: ("41.2", "40", "40"),
    50: ("41.2", "31", "34"),
    75: ("41.7", "20", "27"),
    80: ("41.8", "17", "25"),
    85: ("41.4", "10", "20"),
    90: ("41.5", "5", "16"),
}


def with_arms(setting: Setting, arms: Sequence[str], variants: Sequence[Variant] = (), manual: str = "") -> Setting:
    """A setting with what a study trains in it."""
    return replace(setting, arms=tuple(arms), variants=tuple(variants), manual_plan=manual)


def theta_variants() -> tuple[Variant, ...]:
    """HS3's plan at each angle of Table 5, from the same matrices."""
    return tuple(Variant(f"theta-{theta}", supervision={"theta_degrees": float(theta)}) for theta in THETAS)


def _row(title: str, miou: str, setting: str = "", arm: str = "", protocol: str = "", **paper: str) -> Row:
    columns = {"mIoU": miou, **{key.replace("_", " "): value for key, value in paper.items()}}
    return Row(title, {key: value for key, value in columns.items() if value}, setting, arm, protocol)


def _supervised_rows(network: str, setting: str, mious: Sequence[str], gmacs: str) -> tuple[Row, ...]:
    titles = ("no supervision", "deep supervision", "HS3")
    return tuple(
        _row(f"{network}, {title}", miou, setting, arm, GMACs=gmacs)
        for title, arm, miou in zip(titles, CORE, mious, strict=True)
    )


TABLE1 = Study(
    "table1",
    "NYUD-v2: HS3 against deep supervision",
    "Table 1",
    "Does HS3 win against deep supervision and no supervision, at no cost at inference?",
    columns=("mIoU", "GMACs"),
    full=Version(
        (with_arms(NYU_OCR, CONTROLS), with_arms(NYU_W48, CONTROLS)),
        (
            *_supervised_rows("HRNetv2-w18-OCR", NYU_OCR.name, ("40.6", "41.2", "41.7"), "22"),
            Row("HRNetv2-w18-OCR, random groups", {}, NYU_OCR.name, "random"),
            *_supervised_rows("HRNetv2-w48", NYU_W48.name, ("47.2", "47.0", "47.6"), "110"),
            Row("HRNetv2-w48, random groups", {}, NYU_W48.name, "random"),
        ),
    ),
    small=Version(
        (with_arms(NYU_SMALL_OCR, CONTROLS),),
        (
            *_supervised_rows("HRNetv2-w18-OCR", NYU_SMALL_OCR.name, ("40.6", "41.2", "41.7"), "22"),
            Row("HRNetv2-w18-OCR, random groups", {}, NYU_SMALL_OCR.name, "random"),
            *_supervised_rows("HRNetv2-w48", "", ("47.2", "47.0", "47.6"), "110"),
        ),
        seeds=(0, 1),
        note="Ours is HRNetV2-w18-small with half of the OCR widths, from scratch, at 144x192. There is no small w48.",
    ),
)

_SAGATE_ARMS = ("none", "hs3_fuse")


def _table2_rows(setting: str, *, multi: bool) -> tuple[Row, ...]:
    scales = "multi-scale" if multi else ""
    return (
        _row("CEN-RefineNet", "51.1"),
        _row("SA-Gate", "51.5", setting, "none", pixel_accuracy="76.8"),
        _row("InverseForm", "51.9", pixel_accuracy="77.1"),
        _row("HS3-Fuse on SA-Gate", "52.2", setting, "hs3_fuse", pixel_accuracy="77.4"),
        _row("Malleable 2.5D, multi-scale", "50.9", pixel_accuracy="76.9"),
        _row("SA-Gate, multi-scale", "52.4", setting if multi else "", "none", scales, pixel_accuracy="77.9"),
        _row("NANet, multi-scale", "52.3", pixel_accuracy="77.9"),
        _row("CEN-PSPNet, multi-scale", "52.5", pixel_accuracy="77.7"),
        _row("InverseForm, multi-scale", "53.1", pixel_accuracy="78.1"),
        _row("HS3-Fuse, multi-scale", "53.5", setting if multi else "", "hs3_fuse", scales, pixel_accuracy="78.3"),
    )


_SAGATE = Setting(
    "nyuv2-sagate",
    "nyuv2-sagate.toml",
    _SAGATE_ARMS,
    size=NYU,
    # SA-Gate's own, which the paper follows; its window and the way that looks are merged are in the config.
    protocols={"multi-scale": ("--evaluation.scales", "[1.0, 0.75, 1.25]", "--evaluation.flip", "true")},
    starts_from="the ResNet-101 (v1c) of ImageNet that SA-Gate's code starts from",
)
_SAGATE_SMALL = Setting("nyuv2-sagate-small", "studies/nyuv2-sagate-small.toml", _SAGATE_ARMS)

TABLE2 = Study(
    "table2",
    "NYUD-v2, RGB-D: HS3-Fuse on SA-Gate",
    "Table 2",
    "How far does HS3-Fuse bring SA-Gate, single-scale and multi-scale?",
    columns=("mIoU", "pixel accuracy"),
    full=Version((_SAGATE,), _table2_rows(_SAGATE.name, multi=True)),
    small=Version(
        (_SAGATE_SMALL,),
        _table2_rows(_SAGATE_SMALL.name, multi=False),
        seeds=(0,),
        note="Ours is SA-Gate from scratch with raw depth at 120x160 and two epochs: it shows that everything works.",
    ),
)

TABLE3 = Study(
    "table3",
    "Cityscapes val: HS3 and HS3-Fuse",
    "Table 3",
    "What do HS3 and HS3-Fuse gain, and what does it cost at inference?",
    columns=("mIoU", "GMACs"),
    pictures=("cost",),
    full=Version(
        (
            with_arms(CITY_WRN38, ("deep_supervision", "hs3")),
            with_arms(CITY_W18, CONTROLS),
            with_arms(CITY_OCR, ("none", "hs3_fuse"), (LIGHTER,)),
        ),
        (
            _row("DeepLab-v3+ WRN38, deep supervision", "82.8", CITY_WRN38.name, "deep_supervision", GMACs="5.8K"),
            _row("DeepLab-v3+ WRN38, HS3", "83.1", CITY_WRN38.name, "hs3", GMACs="5.8K"),
            *_supervised_rows("HRNetv2-w18", CITY_W18.name, ("77.6", "77.7", "78.1"), "76"),
            Row("HRNetv2-w18, random groups", {}, CITY_W18.name, "random"),
            _row("HRNetv2-w18-OCR", "80.7", CITY_OCR.name, "none", GMACs="154"),
            _row("HS3-Fuse", "81.8", CITY_OCR.name, "hs3_fuse", GMACs="224"),
            _row("HS3-Fuse (Lighter)", "81.4", CITY_OCR.name, LIGHTER.name, GMACs="154"),
        ),
    ),
    small=Version(
        (with_arms(CAMVID, CORE), with_arms(CAMVID_OCR, ("none", "hs3_fuse"), (LIGHTER,))),
        (
            _row("DeepLab-v3+ WRN38, deep supervision", "82.8", GMACs="5.8K"),
            _row("DeepLab-v3+ WRN38, HS3", "83.1", GMACs="5.8K"),
            *_supervised_rows("HRNetv2-w18", CAMVID.name, ("77.6", "77.7", "78.1"), "76"),
            _row("HRNetv2-w18-OCR", "80.7", CAMVID_OCR.name, "none", GMACs="154"),
            _row("HS3-Fuse", "81.8", CAMVID_OCR.name, "hs3_fuse", GMACs="224"),
            _row("HS3-Fuse (Lighter)", "81.4", CAMVID_OCR.name, LIGHTER.name, GMACs="154"),
        ),
        seeds=(0, 1),
        note="Ours is HRNetV2-w18-small on CamVid at 192x256, from scratch; GMACs are of that size.",
    ),
)

_OTHERS = (
    ("SegFix", "84.5", "65.9"),
    ("Panoptic-DeepLab", "85.1", "71.2"),
    ("Naive Student", "85.2", "68.8"),
    ("DCNAS-ASPP", "85.3", "70.0"),
)


def _table4_rows(setting: str) -> tuple[Row, ...]:
    return (
        *(_row(title, miou, iIoU=iiou) for title, miou, iiou in _OTHERS),
        _row("Hierarchical multi-scale attention", "85.4", setting, "none", iIoU="70.4"),
        _row("InverseForm", "85.6", iIoU="71.4"),
        _row("HS3-Fuse on HMS", "85.7", setting, "hs3_fuse", iIoU="71.7"),
    )


_HMS_TEST = Setting(
    "cityscapes-hms-trainval",
    CITY_HMS.config,
    ("none", "hs3_fuse"),
    overrides=("--data.train_split", "trainval", "--data.evaluate_splits", '["val"]'),
    size=CITY,
    submit=True,
)

TABLE4 = Study(
    "table4",
    "Cityscapes test: HS3-Fuse on hierarchical multi-scale attention",
    "Table 4",
    "What does HS3-Fuse add to HMS on the test server?",
    columns=("mIoU", "iIoU"),
    full=Version(
        (with_arms(CITY_HMS, ("none", "hs3_fuse")), _HMS_TEST),
        (
            *_table4_rows(CITY_HMS.name),
            Row("HMS, trained on train and val", {}, _HMS_TEST.name, "none"),
            Row("HS3-Fuse, trained on train and val", {}, _HMS_TEST.name, "hs3_fuse"),
        ),
        seeds=(0,),
        note="The paper's numbers are of the test server, ours of val. Networks trained on train and val have seen val,"
        " so their numbers here mean nothing: their packed predictions of test are for the server.",
    ),
    small=Version(
        (with_arms(CAMVID_OCR, ("none", "hs3_fuse")),),
        _table4_rows(CAMVID_OCR.name),
        seeds=(0, 1),
        note="Ours is HRNetV2-w18-small-OCR without multi-scale attention on CamVid's test frames.",
        split="test",
    ),
)


def _table5_rows(setting: str) -> tuple[Row, ...]:
    rows = [
        _row(f"\u03b8 = {theta}\u00b0", miou, setting, f"theta-{theta}", K_1=first, K_2=second)
        for theta, (miou, first, second) in _THETA_ROWS.items()
    ]
    rows.append(_row("ratio rule (the paper's: 76\u00b0)", "41.7", setting, "hs3"))
    rows.append(_row("no supervision", "40.6", setting, "none"))
    return tuple(rows)


TABLE5 = Study(
    "table5",
    "Where on the trade-off: the angle \u03b8",
    "Table 5",
    "How does the number of groups matter, from all classes (0\u00b0) to the final output's mIoU (90\u00b0)?",
    columns=("mIoU", "K 1", "K 2"),
    pictures=("sweep", "tradeoff"),
    sweep={f"theta-{theta}": float(theta) for theta in THETAS},
    sweep_title="\u03b8, degrees",
    full=Version((with_arms(NYU_OCR, CORE, theta_variants()),), _table5_rows(NYU_OCR.name)),
    small=Version(
        (with_arms(NYU_SMALL, CORE, theta_variants()),),
        _table5_rows(NYU_SMALL.name),
        seeds=(0, 1),
        note="Ours is HRNetV2-w18-small without OCR, from scratch, at 144x192.",
    ),
)


def _table6_rows(setting: str) -> tuple[Row, ...]:
    return (
        _row("none", "77.6", setting, "none"),
        _row("deep supervision", "77.7", setting, "deep_supervision"),
        _row("HS3, manual", "77.9", setting, "manual"),
        _row("HS3, k-means", "78.1", setting, "kmeans"),
        _row("HS3, spectral", "78.1", setting, "hs3"),
        Row("random groups", {}, setting, "random"),
    )


_TABLE6 = (*CORE, "manual", "kmeans", "random")
_TABLE6_NOTE = (
    "The paper's groups by hand are not printed: ours are in the plan file. Its k-means takes object-region vectors of"
    " OCR blocks; ours the mean features per class of a network without them, in as many groups as HS3 has, so that"
    " only the way of grouping differs."
)

TABLE6 = Study(
    "table6",
    "How classes are grouped",
    "Table 6",
    "Do groups found by spectral clustering beat those by k-means, by hand, and by chance?",
    columns=("mIoU", "groups"),
    full=Version(
        (with_arms(CITY_W18, _TABLE6, manual="paper/cityscapes-manual-plan.toml"),),
        _table6_rows(CITY_W18.name),
        note=_TABLE6_NOTE,
    ),
    small=Version(
        (with_arms(CAMVID, _TABLE6, manual="studies/camvid-manual-plan.toml"),),
        _table6_rows(CAMVID.name),
        note=f"Ours is HRNetV2-w18-small on CamVid at 192x256, from scratch. {_TABLE6_NOTE}",
    ),
)

FIG2 = Study(
    "fig2",
    "Accuracy against complexity",
    "Fig. 2",
    "How does each stage's mIoU fall with the number of groups, and which number has the final output's ratio?",
    columns=("groups",),
    pictures=("tradeoff",),
    full=Version(
        (NYU_OCR,),
        (
            Row(
                "HS3's groups (paper: at 75\u00b0, Table 5; it says 76\u00b0)",
                {"groups": "20, 27"},
                NYU_OCR.name,
                "hs3",
            ),
        ),
        seeds=(0,),
    ),
    small=Version(
        (NYU_SMALL,),
        (Row("HS3's groups (paper: at 75\u00b0, Table 5)", {"groups": "20, 27"}, NYU_SMALL.name, "hs3"),),
        note="Ours is HRNetV2-w18-small without OCR, from scratch, at 144x192.",
    ),
)


def _narrow(setting: Setting, mid: int) -> Setting:
    """The plain OCR network at another width."""
    words = ("--network.mid", str(mid), "--network.key", str(mid // 2))
    return replace(setting, name=f"{setting.name}-mid-{mid}", arms=("none",), variants=(), overrides=words)


def _fig4(setting: Setting, mids: Sequence[int], seeds: tuple[int, ...], note: str) -> Version:
    fused = tuple(Variant(f"fuse-mid-{mid}", fuse={"mid": mid, "key": mid // 2}) for mid in mids)
    narrow = [_narrow(setting, mid) for mid in mids]
    own = with_arms(setting, ("none", "hs3_fuse"), (LIGHTER, *fused))
    rows = (
        _row("OCR", "80.7", setting.name, "none", GMACs="154"),
        _row("HS3-Fuse", "81.8", setting.name, "hs3_fuse", GMACs="224"),
        _row("HS3-Fuse (Lighter)", "81.4", setting.name, LIGHTER.name, GMACs="154"),
        *(Row(f"OCR, {mid} channels", {}, n.name, "none") for mid, n in zip(mids, narrow, strict=True)),
        *(Row(f"HS3-Fuse, {mid} channels", {}, setting.name, v.name) for mid, v in zip(mids, fused, strict=True)),
    )
    return Version((own, *narrow), rows, seeds, note)


FIG4 = Study(
    "fig4",
    "mIoU against GMACs, with and without HS3-Fuse",
    "Fig. 4",
    "Is HS3-Fuse better than plain OCR of the same cost?",
    columns=("mIoU", "GMACs"),
    pictures=("cost",),
    full=_fig4(
        CITY_OCR,
        (96, 144, 288),
        (0, 1, 2),
        "The figure's points are not printed: the paper's rows are those of Table 3, the other widths are ours.",
    ),
    small=_fig4(
        CAMVID_OCR,
        (48, 144),
        (0,),
        "Ours is HRNetV2-w18-small on CamVid at 192x256, from scratch; GMACs are of that size.",
    ),
)

FIG5 = Study(
    "fig5",
    "Pictures: what each stage sees",
    "Fig. 5",
    "Image, truth, the stages' groups and the final outputs side by side.",
    pictures=("samples",),
    full=Version(
        (with_arms(CITY_HMS, ("none", "hs3_fuse")),),
        (),
        seeds=(0,),
        note="The paper shows test frames, which have no public truth: these are of val.",
    ),
    small=Version(
        (with_arms(CAMVID, CORE), with_arms(CAMVID_OCR, ("none", "hs3_fuse"))),
        (),
        seeds=(0,),
        note="Ours is HRNetV2-w18-small on CamVid at 192x256, from scratch.",
    ),
)

PAPER = (TABLE1, TABLE2, TABLE3, TABLE4, TABLE5, TABLE6, FIG2, FIG4, FIG5)
