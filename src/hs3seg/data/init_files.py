"""The two files that `hs3 data init FOLDER` writes: taxonomy.toml and a config for `hs3 run`."""

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from hs3seg.data.discover import ClassFound, Proposal, propose_taxonomy
from hs3seg.errors import DataError
from hs3seg.files import write_atomically
from hs3seg.taxonomy import Taxonomy

_LARGEST_CROP = 512
_STRIDE = 32
_TRAINING = """\
[network]
name = "hrnet_w18_small"
bn_momentum = 0.1

[loss]
class_weights = "inverse_log"

[train]
epochs = 60
batch_size = {batch_size}
optimizer = "adamw"
learning_rate = 2e-3
weight_decay = 0.01
decay_norms = false
warmup_epochs = 2.0
clip_norm = 5.0
ema_decay = 0.99
"""


@dataclass(frozen=True)
class Written:
    """What `write_init` made.

    Args:
        taxonomy: File of the classes, to be edited.
        config: File for `hs3 run`.
        proposal: What stands in them, and why.
    """

    taxonomy: Path
    config: Path
    proposal: Proposal

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of a class that is a colour, `value` is [r, g, b]."""
        found = self.proposal
        classes = [
            {"name": name, "value": _plain(seen.value), "share": seen.share, "files": seen.num_files}
            for name, seen in zip(found.taxonomy.names, found.classes, strict=True)
        ]
        ignored = [{"value": _plain(value), "share": share} for value, share in found.ignored.items()]
        return {
            "taxonomy": str(self.taxonomy),
            "config": str(self.config),
            "masks": found.num_masks,
            "splits": list(found.splits),
            "classes": classes,
            "ignored": ignored,
            "data": found.data,
            "notes": list(found.notes),
        }


def write_init(
    folder: Path | str,
    taxonomy: Path | str | None = None,
    config: Path | str | None = None,
    *,
    overwrite: bool = False,
    num_workers: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> Written:
    """Looks at a folder of images and masks and writes a taxonomy and a config for it.

    Args:
        folder: Data set in any layout that `guess_layout` understands.
        taxonomy: File to write; None = taxonomy.toml in the folder.
        config: File to write; None = hs3.toml in the folder.
        overwrite: Replace files that are already there; else nothing is read or written then.
        num_workers: Processes that read masks.
        progress: Called with the number of masks read and of all.

    Raises:
        DataError: a file is already there or cannot be written, or see `propose_taxonomy`.
    """
    folder = Path(folder)
    own = folder / "taxonomy.toml"
    taxonomy, config = Path(taxonomy or own), Path(config or folder / "hs3.toml")
    if taxonomy.resolve() == config.resolve():
        raise DataError(f"'{taxonomy}' cannot be both taxonomy and config; give two names")
    for path in (taxonomy, config):
        if path.exists() and not overwrite:
            raise DataError(f"'{path}' is already there; remove it, or say that it may be overwritten (--overwrite)")
    proposal, _ = propose_taxonomy(folder, num_workers, progress)
    texts = {
        taxonomy: taxonomy_text(proposal),
        config: config_text(proposal, folder, None if taxonomy.resolve() == own.resolve() else taxonomy),
    }
    # What cannot be read again is our mistake, and is to be found before a file is written.
    Taxonomy.from_dict(tomllib.loads(texts[taxonomy]))
    tomllib.loads(texts[config])
    for path, text in texts.items():
        try:
            _write(path, text)
        except OSError as error:
            raise DataError(
                f"'{path}' cannot be written ({error.strerror}); name a place for it (--taxonomy, --out)"
            ) from None
    return Written(taxonomy, config, proposal)


def taxonomy_text(proposal: Proposal) -> str:
    """taxonomy.toml with the share of each class in comments."""
    head = [
        "# Written by `hs3 data init`. Give the classes their names: change nothing but the words behind name.",
        "# Classes stand in id order: the first is label 0. Pixels labelled ignore_index belong to no class.",
    ]
    head += [f"# Ignored: {_words(value)}, {_percent(share)}." for value, share in proposal.ignored.items()]
    parts = ["\n".join([*head, f"ignore_index = {proposal.taxonomy.ignore_index}"])]
    for name, colour, seen in zip(proposal.taxonomy.names, proposal.taxonomy.colours, proposal.classes, strict=True):
        parts.append(f"[[class]]  # {_seen(seen, proposal.num_masks)}\nname = {_value(name)}\ncolour = {list(colour)}")
    return "\n\n".join(parts) + "\n"


def config_text(proposal: Proposal, folder: Path, taxonomy: Path | None = None) -> str:
    """A config for `hs3 run`.

    Args:
        proposal: What was found.
        folder: Root of the data.
        taxonomy: Its file, where that is not ROOT/taxonomy.toml.
    """
    folder = folder.resolve()
    train, *others = proposal.splits
    data: dict[str, Any] = {"kind": "folder", "root": str(folder)}
    if taxonomy is not None:
        data["taxonomy"] = str(taxonomy.resolve())
    data |= {"train_split": train, "evaluate_splits": others or [train], "num_workers": 1}
    data |= proposal.data
    crop = [max(_STRIDE, min(_LARGEST_CROP, side) // _STRIDE * _STRIDE) for side in proposal.size]
    name = re.sub(r"[^\w.-]+", "-", folder.name).strip("-.") or "data"
    notes = "".join(f"#   {line}\n" for note in proposal.notes for line in _wrapped(note))
    tail = _TRAINING.format(batch_size=max(1, min(8, proposal.num_masks // 4)))
    return (
        "# Written by `hs3 data init`. Edit the names in taxonomy.toml, then:\n"
        "#   hs3 data check THIS_FILE    finds what is wrong with the masks\n"
        "#   hs3 run THIS_FILE           trains, compares, reports\n"
        f"# What was found:\n{notes}"
        f"{tomli_w.dumps({'name': name, 'seed': 0, 'arms': ['none', 'deep_supervision', 'hs3']})}\n"
        f"{tomli_w.dumps({'data': data})}\n"
        f"[augment]\ncrop = {crop}\nscale = [0.75, 1.5]\nflip = 0.5  # 0.0 where left and right mean something\n\n"
        f"{tail}"
    )


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _seen(seen: ClassFound, num_masks: int) -> str:
    if not seen.num_files:
        return f"{_words(seen.value)}: in no mask"
    return f"{_words(seen.value)}: {_percent(seen.share)}, in {seen.num_files} of {num_masks} masks"


def _words(value: Any) -> str:
    return f"id {value} in the files" if isinstance(value, int) else f"colour {value}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} % of the pixels"


def _plain(value: Any) -> Any:
    return value if isinstance(value, int) else list(value)


def _value(text: str) -> str:
    return tomli_w.dumps({"x": text}).partition("= ")[2].strip()


def _wrapped(note: str, width: int = 110) -> list[str]:
    """A note in lines for comments; control characters, which file names may have, would break TOML."""
    words = re.sub(r"[\x00-\x1f\x7f]", "?", note).split(" ")
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
