"""Questions that the paper leaves open; ours, in small."""

from collections.abc import Sequence

from hs3seg.pipeline.reproduce.paper import CAMVID, CONTROLS, CORE, NYU_SMALL, with_arms
from hs3seg.pipeline.reproduce.study import Row, Setting, Study, Variant, Version

_NOTE = "HRNetV2-w18-small from scratch; NYU-Depth-v2 at 144x192, CamVid at 192x256."
_BASE = ("none", "deep_supervision", "hs3")
_BASE_TITLES = ("no supervision", "deep supervision", "HS3")


def _base(setting: str) -> tuple[Row, ...]:
    return tuple(Row(title, {}, setting, arm) for title, arm in zip(_BASE_TITLES, _BASE, strict=True))


_COMPARED = ("none", "deep_supervision", "hs3", "random", "online")
_COMPARED_TITLES = (*_BASE_TITLES, "random groups of HS3's sizes", "single phase")


def _titled(setting: Setting, arms: Sequence[str], titles: Sequence[str]) -> tuple[Row, ...]:
    """Rows of a table that several settings share."""
    named = zip(titles, arms, strict=True)
    return tuple(Row(f"{setting.title}: {title}", {}, setting.name, arm) for title, arm in named)


ARMS = Study(
    "arms",
    "Do the groups help, and must there be two phases?",
    "",
    "HS3 against deep supervision, against random groups of the same sizes, and against groups that are found while"
    " the network trains.",
    columns=("mIoU", "groups"),
    small=Version(
        (with_arms(CAMVID, _COMPARED), with_arms(NYU_SMALL, _COMPARED)),
        (*_titled(CAMVID, _COMPARED, _COMPARED_TITLES), *_titled(NYU_SMALL, _COMPARED, _COMPARED_TITLES)),
        note=_NOTE,
    ),
    against=("hs3",),
)

_RAW = Variant("affinity-raw", supervision={"normalize": "none"})

AFFINITY = Study(
    "affinity",
    "Affinity: raw counts, rows of equal weight, or the diagonal kept",
    "Sec. 3.1.1 (no numbers)",
    "The paper clusters (C + C^T) / 2 of raw pixel counts, in which frequent classes dominate. Does dividing each row"
    " of C by its sum, as we do, matter, and does leaving out C's diagonal, which only says how large a class is?",
    columns=("mIoU", "groups"),
    small=Version(
        (with_arms(NYU_SMALL, (*_BASE, "hs3_diagonal"), (_RAW,)),),
        (
            *_base(NYU_SMALL.name),
            Row("HS3, affinity of raw counts", {}, NYU_SMALL.name, _RAW.name),
            Row("HS3, diagonal kept in the affinity", {}, NYU_SMALL.name, "hs3_diagonal"),
        ),
        seeds=(0, 1),
        note=_NOTE,
    ),
)

_GAMMAS = (0.1, 0.2, 0.7, 1.0)
_USUAL_GAMMA = 0.4
_GAMMA_HS3 = tuple(Variant(f"gamma-{gamma:g}", gamma=gamma) for gamma in _GAMMAS)
_GAMMA_DEEP = tuple(Variant(f"deep-gamma-{g:g}", "deep_supervision", gamma=g) for g in (0.1, 1.0))

GAMMA = Study(
    "gamma",
    "Weight of the stages' losses",
    "Eq. 1 (no numbers)",
    "The paper states no gamma. How much hangs on it?",
    pictures=("sweep",),
    sweep={"hs3": _USUAL_GAMMA, **{v.name: g for v, g in zip(_GAMMA_HS3, _GAMMAS, strict=True)}},
    sweep_title="\u03b3 of HS3",
    small=Version(
        (with_arms(CAMVID, _BASE, (*_GAMMA_HS3, *_GAMMA_DEEP)),),
        (
            *_base(CAMVID.name),
            *(Row(f"HS3, \u03b3 = {v.gamma:g}", {}, CAMVID.name, v.name) for v in _GAMMA_HS3),
            *(Row(f"deep supervision, \u03b3 = {v.gamma:g}", {}, CAMVID.name, v.name) for v in _GAMMA_DEEP),
        ),
        seeds=(0,),
        note=f"Rows without a gamma have {_USUAL_GAMMA:g}. {_NOTE}",
    ),
)

_THREE = Setting(
    "camvid-small-three-stages",
    CAMVID.config,
    _BASE,
    overrides=("--supervision.stages", '["layer1", "stage2", "stage3"]'),
    title="three stages",
)
_PLACES: dict[str, tuple[str, ...]] = {"early": ("stage2",), "late": ("stage3",)}
_HS3_PLACES = tuple(Variant(f"hs3-{name}", keep=stages) for name, stages in _PLACES.items())
_DEEP_PLACES = tuple(Variant(f"deep-{name}", "deep_supervision", keep=stages) for name, stages in _PLACES.items())

STAGES = Study(
    "stages",
    "Number and place of the supervised stages",
    "Sec. 4.1 (no numbers)",
    "The paper supervises the outputs of stages 2 and 3. What does one stage alone do, and a third, earlier one?",
    columns=("mIoU", "groups"),
    small=Version(
        (with_arms(CAMVID, _BASE, (*_HS3_PLACES, *_DEEP_PLACES)), _THREE),
        (
            *_base(CAMVID.name),
            Row("deep supervision, stage 2 alone", {}, CAMVID.name, "deep-early"),
            Row("deep supervision, stage 3 alone", {}, CAMVID.name, "deep-late"),
            Row("deep supervision, layer 1 and stages 2, 3", {}, _THREE.name, "deep_supervision"),
            Row("HS3, stage 2 alone", {}, CAMVID.name, "hs3-early"),
            Row("HS3, stage 3 alone", {}, CAMVID.name, "hs3-late"),
            Row("HS3, layer 1 and stages 2, 3", {}, _THREE.name, "hs3"),
        ),
        seeds=(0,),
        note=f"HS3 of one stage takes the groups that this stage has beside the other. {_NOTE}",
    ),
)

HEADS = Study(
    "heads",
    "Heads of K_i groups, or of K classes with log-sum-exp",
    "Sec. 3 (no numbers)",
    "A head may have an output per group, or one per class whose probabilities are summed within a group. Which is"
    " better?",
    small=Version(
        (with_arms(NYU_SMALL, (*CORE, "hs3_class_heads")),),
        (*_base(NYU_SMALL.name), Row("HS3, heads of all classes", {}, NYU_SMALL.name, "hs3_class_heads")),
        seeds=(0, 1),
        note=_NOTE,
    ),
)

_HELD_OUT = Variant("online-held-out", "online", online={"source": "held_out"})
_NO_PROBE = Variant("online-no-probe", "online", online={"probe": False})
_LATE = Variant("online-late", "online", online={"warmup": 0.4})
_FORGETFUL = Variant("online-forgetful", "online", online={"momentum": 0.0})
_EAGER = Variant("online-eager", "online", online={"patience": 1, "similarity": 1.0})
_SINGLE = (
    (_HELD_OUT, "held-out data"),
    (_NO_PROBE, "no probe"),
    (_LATE, "from 40 % on"),
    (_FORGETFUL, "without memory"),
    (_EAGER, "no patience"),
)

SINGLE_PHASE = Study(
    "single-phase",
    "HS3 in one training",
    "Sec. 5 (future work)",
    "Groups are found while the network trains. Where should its stages be measured, what do warm-up, memory and"
    " patience change, and what is the same computing time worth as a longer training with and without supervision?",
    columns=("mIoU", "groups"),
    small=Version(
        (
            with_arms(
                CAMVID,
                ("none_long", "deep_supervision", "deep_supervision_long", "hs3", "online", "online_coarse_to_fine"),
                tuple(variant for variant, _ in _SINGLE),
            ),
        ),
        (
            Row("deep supervision", {}, CAMVID.name, "deep_supervision"),
            Row("no supervision, as long as both phases", {}, CAMVID.name, "none_long"),
            Row("deep supervision, as long as both phases", {}, CAMVID.name, "deep_supervision_long"),
            Row("HS3, two phases", {}, CAMVID.name, "hs3"),
            Row("single phase, measured on training batches", {}, CAMVID.name, "online"),
            Row("single phase, coarse to fine", {}, CAMVID.name, "online_coarse_to_fine"),
            *(Row(f"single phase, {words}", {}, CAMVID.name, variant.name) for variant, words in _SINGLE),
        ),
        seeds=(0, 1, 2),
        note="The groups of a single phase are those that it ended with. Held-out data: stages are measured on the"
        " analysis split, which is left out of training, instead of training batches. No probe: heads learn their"
        " groups only. From 40 % on: of the training, instead of 15. Without memory: what was counted since the last"
        f" look alone. No patience: every proposal is adopted. {_NOTE}",
    ),
    against=("hs3", "deep_supervision_long"),
)

_PLANTED_ARMS = ("none", "deep_supervision", "hs3", "random", "manual")
_KNEE = Variant("knee", supervision={"rule": "knee"})
_PLANTED_TITLES = (
    *_BASE_TITLES,
    "random groups of HS3's sizes",
    "the planted groups",
    "HS3 at the curve's knee",
)
_PLANTED = Setting(
    "planted-short",
    "studies/planted-short.toml",
    _PLANTED_ARMS,
    variants=(_KNEE,),
    manual_plan="studies/planted-plan.toml",
    title="planted scenes",
)

CONDITIONS = Study(
    "conditions",
    "Do groups help where a stage cannot tell some classes, and which is known?",
    "",
    "An early stage is supervised that sees too little to tell some classes. Do the groups that it can tell help more"
    " than all classes, or than random groups? Does the paper's rule find their number, or does the curve's knee?",
    columns=("mIoU", "groups"),
    small=Version(
        (_PLANTED,),
        tuple(
            Row(title, {}, _PLANTED.name, arm)
            for title, arm in zip(_PLANTED_TITLES, (*_PLANTED_ARMS, _KNEE.name), strict=True)
        ),
        seeds=tuple(range(8)),
        note="Planted scenes at 80x96, 384 to learn from; HRNetV2-w18-small from scratch, supervised after layer 1 and"
        " stage 3. Drawn on the fly: no data are needed.",
    ),
    against=("hs3",),
)

_FEW = Setting(
    "nyuv2-small-few",
    NYU_SMALL.config,
    CONTROLS,
    overrides=("--data.train_images", "200", "--train.epochs", "30"),
    title="200 images of NYU-Depth-v2",
)

DATA_SIZE = Study(
    "data-size",
    "Do groups help where images are few?",
    "",
    "An easier task for the early stages could matter most where little is there to learn from: a quarter of"
    " NYU-Depth-v2's training images, against all of them in the study `arms`.",
    columns=("mIoU", "groups"),
    small=Version(
        (_FEW,),
        (*_base(_FEW.name), Row("random groups of HS3's sizes", {}, _FEW.name, "random")),
        note="HRNetV2-w18-small from scratch at 144x192; 200 of 795 images, drawn with the seed, 30 epochs.",
    ),
    against=("hs3",),
)

_DIGITS_ARMS = ("none", "deep_supervision", "deep_supervision_long", "hs3", "random", "online")
_DIGITS = Setting("digits-small", "studies/digits-small.toml", _DIGITS_ARMS, title="digit scenes")

MANY_SEEDS = Study(
    "many-seeds",
    "What do twenty seeds see that three do not?",
    "",
    "The paper's gains are tenths of a point, and three seeds see whole points only. Digit scenes are learned in a"
    " minute, so that differences of half a point can be told from chance: are HS3, random groups, a single phase and"
    " supervision itself better or worse than the paper's baseline, and by how much?",
    columns=("mIoU", "groups"),
    small=Version(
        (_DIGITS,),
        (
            Row("no supervision", {}, _DIGITS.name, "none"),
            Row("deep supervision", {}, _DIGITS.name, "deep_supervision"),
            Row("deep supervision, as long as both phases", {}, _DIGITS.name, "deep_supervision_long"),
            Row("HS3", {}, _DIGITS.name, "hs3"),
            Row("random groups of HS3's sizes", {}, _DIGITS.name, "random"),
            Row("single phase", {}, _DIGITS.name, "online"),
        ),
        seeds=tuple(range(20)),
        note="Digit scenes of 64x96 pixels, 11 classes, 1024 to learn from, 640 of test; HRNetV2-w18-small from"
        " scratch, 10 epochs. Composed on the fly: no data are needed.",
    ),
    against=("hs3", "deep_supervision_long"),
)

OWN = (ARMS, AFFINITY, GAMMA, STAGES, HEADS, SINGLE_PHASE, CONDITIONS, DATA_SIZE, MANY_SEEDS)
