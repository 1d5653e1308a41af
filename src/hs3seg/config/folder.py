"""The config that lies in a data folder, so that each command and helper reads the folder as `hs3 run` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hs3seg.config.data import FolderData
from hs3seg.config.load import apply_overrides, config_from_dict, load_config
from hs3seg.config.sections import Config

FILE = "hs3.toml"
"""What `hs3 data init` calls it."""


def own_config(folder: Path, overrides: Sequence[str] = ()) -> Config | None:
    """The config that `hs3 data init FOLDER` wrote into a folder; None where there is none.

    Args:
        folder: Data set.
        overrides: `--section.key value` words.

    Raises:
        ConfigError: it cannot be read.
    """
    file = folder / FILE
    return load_config(file, overrides) if file.is_file() else None


def config_of_folder(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """A folder's own config; one for images and masks where it has none, to look at it.

    Args:
        folder: Data set; without a config its splits are train, and val and test where they are there.
        overrides: `--section.key value` words.

    Raises:
        ConfigError: its config cannot be read, or an override cannot be used.
    """
    if (found := own_config(folder, overrides)) is not None:
        return found
    values: dict[str, Any] = {
        "name": folder.resolve().name or "data",
        "data": {"kind": "folder", "root": str(folder)},
        "augment": {"crop": [256, 256]},
    }
    apply_overrides(values, overrides)
    if "evaluate_splits" not in values["data"]:
        # Folders, and lists of a split: an image may be called test, too.
        names = {path.name for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_dir()}
        names |= {path.stem for path in folder.glob("*.txt")}
        values["data"]["evaluate_splits"] = [name for name in ("val", "test") if name in names] or ["val"]
    return config_from_dict(values, str(folder))


def data_of_folder(folder: Path) -> FolderData:
    """How the images and masks of a folder are read: by [data] of its own config, or by the defaults.

    Args:
        folder: Data set; it counts as root, wherever it was when its config was written.

    Raises:
        ConfigError: its config cannot be read.
    """
    found = own_config(folder)
    data = found.data if found is not None and isinstance(found.data, FolderData) else FolderData()
    return data.model_copy(update={"root": str(folder)})


def lay_under(values: dict[str, Any]) -> None:
    """Lays [data] and the seed of the folder's own config under plain values that name the folder, in place.

    The seed goes along, since it says which images are in a split that is cut at random. Nothing is laid under where
    `data.root` is not given, or the folder's config is of another kind.

    Args:
        values: Of a config; what they say stays.

    Raises:
        ConfigError: the folder's config cannot be read.
    """
    data = values.get("data", {})
    if not data.get("root") or (found := own_config(Path(data["root"]))) is None:
        return
    if data.get("kind", found.data.kind) == found.data.kind:
        values["data"] = found.data.model_dump(mode="json", exclude_unset=True) | data
        values.setdefault("seed", found.seed)
