"""Splits that cannot be opened: every file without its partner is named, and what pairs is examined all the same."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hs3seg.data.doctor.findings import Finding
from hs3seg.data.folder import FolderDataset, list_of_pairs
from hs3seg.data.images import IMAGE_SUFFIXES, Encoding
from hs3seg.data.pairs import Exif, is_below, read_pair, unique_names
from hs3seg.data.sample import Sample, SegmentationDataset
from hs3seg.errors import DataError
from hs3seg.taxonomy import Colour, Taxonomy

Pair = tuple[Path, Path]

# What `pairs.pair_files` says; the two folders stand in it.
_ALONE = re.compile(r"(image|mask) '(?P<file>.+?)' has no (image|mask) '(?P<folder>.+)[\\/][^\\/]*\.\*'", re.DOTALL)
_AS_SAID = "do as the message says; the samples of this split are examined once it can be opened"


@dataclass
class Opened:
    """Splits as far as they can be opened.

    Args:
        datasets: Split -> samples; of a split with faults, those that pair.
        findings: Why a split cannot be opened, file by file.
    """

    datasets: dict[str, SegmentationDataset] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


class PairsDataset:
    """Image and mask files that are known to belong together.

    Args:
        root: The names are paths relative to it, as short as they can be.
        pairs: Image and mask.
        split: Name of the split.
        taxonomy: Classes.
        encoding: `index`, `rgb`, or `auto`.
        ignore_ids: Ids in the files that mean ignore, besides the taxonomy's own.
        ids: Id in the files of each class; empty = class c has id c.
        ignore_colours: Colours in the files that mean ignore, besides black.
        exif: What an orientation in an image's EXIF turns.
    """

    def __init__(
        self,
        root: Path,
        pairs: Sequence[Pair],
        split: str,
        taxonomy: Taxonomy,
        encoding: Encoding = "auto",
        ignore_ids: Sequence[int] = (),
        ids: Sequence[int] = (),
        ignore_colours: Sequence[Colour] = (),
        exif: Exif = "auto",
    ) -> None:
        self.taxonomy, self.split = taxonomy, split
        self._pairs, self._encoding, self._ignore_ids = list(pairs), encoding, tuple(ignore_ids)
        self._ids, self._ignore_colours, self._exif = tuple(ids), tuple(ignore_colours), exif
        self._names = unique_names(root, [image for image, _ in pairs])

    @property
    def names(self) -> Sequence[str]:
        """File stems, or paths where two stems are equal."""
        return self._names

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> Sample:
        """One image with its labels."""
        image, mask = self._pairs[index]
        sample = read_pair(
            image,
            mask,
            self.taxonomy,
            self._encoding,
            self._ignore_ids,
            self._ids,
            self._ignore_colours,
            self._exif,
        )
        return Sample(sample.image, sample.mask, self._names[index])

    def files(self, index: int) -> tuple[str, ...]:
        """Image and mask."""
        image, mask = self._pairs[index]
        return str(image), str(mask)


def open_splits(splits: Iterable[str], open_split: Callable[[str], SegmentationDataset]) -> Opened:
    """Opens splits of any data set; one that refuses to open becomes findings.

    Args:
        splits: Names, the training split first.
        open_split: Makes the data set of a split, e.g. `lambda split: CamVid(root, split)`.
    """
    opened = Opened()
    for split in dict.fromkeys(splits):
        try:
            dataset = open_split(split)
        except DataError as error:
            opened.findings += _refusal(split, error)
        else:
            opened.datasets[split] = dataset
    return opened


def open_folder(
    root: Path,
    splits: Iterable[str],
    taxonomy: Taxonomy,
    images: str = "images",
    masks: str = "masks",
    encoding: Encoding = "auto",
    ignore_ids: Sequence[int] = (),
    seed: int = 0,
    *,
    ids: Sequence[int] = (),
    ignore_colours: Sequence[Colour] = (),
    exif: Exif = "auto",
    **layout: Any,
) -> Opened:
    """Opens splits of a folder; where one cannot be opened, what pairs of it is taken. Arguments of `FolderDataset`.

    Of a layout told by patterns or lists nothing is known where it cannot be opened, but the reason.
    """
    root, opened = Path(root), Opened()
    decode: dict[str, Any] = {"ids": ids, "ignore_colours": ignore_colours, "exif": exif}
    seen: set[Pair] = set()
    for split in dict.fromkeys(splits):
        try:
            opened.datasets[split] = FolderDataset(
                root, split, taxonomy, images, masks, encoding, ignore_ids, seed, **decode, **layout
            )
            continue
        except DataError as error:
            reason = error
        # Shares of a split leave the folders as they are.
        if any(value for key, value in layout.items() if key != "split_fractions"):
            opened.findings += _refusal(split, reason)
            continue
        pairs: list[Pair] = []
        findings: list[Finding] = []
        folders = _folders(root, split, images, masks)
        if listed := _list(root, split, images, masks):
            pairs, findings = _of_list(root, listed, split)
        elif folders is not None and folders in seen:
            continue  # splits that are cut from the same folders share their faults
        elif folders is not None:
            seen.add(folders)
            pairs, findings = match(*folders, split)
        opened.findings += findings or _refusal(split, reason)
        if pairs:
            opened.datasets[split] = PairsDataset(root, pairs, split, taxonomy, encoding, ignore_ids, **decode)
    return opened


def match(images: Path, masks: Path, split: str) -> tuple[list[Pair], list[Finding]]:
    """Files of two folders that have one stem, and a finding for each one that has no partner or two."""
    findings: list[Finding] = []
    by_stem: list[dict[str, Path]] = []
    for folder in (images, masks):
        files: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            first = files.setdefault(path.stem, path)
            if first != path:
                message = f"has the stem of '{first.name}', so it is unclear which of the two to take"
                findings.append(_error("ambiguous-name", split, path, message, "remove or rename one of the two"))
        by_stem.append(files)
    found, labels = by_stem
    for stem in sorted(set(found) - set(labels)):
        message = f"has no mask '{masks / stem}.*'{_hint(stem, set(labels) - set(found))}"
        remedy = "add the mask, or remove the image"
        findings.append(_error("image-without-mask", split, found[stem], message, remedy))
    for stem in sorted(set(labels) - set(found)):
        message = f"has no image '{images / stem}.*'{_hint(stem, set(found) - set(labels))}"
        remedy = "add the image, or remove the mask"
        findings.append(_error("mask-without-image", split, labels[stem], message, remedy))
    return [(found[stem], labels[stem]) for stem in sorted(set(found) & set(labels))], findings


def _list(root: Path, split: str, images: str, masks: str) -> Path | None:
    try:
        return list_of_pairs(root, split, images, masks)
    except DataError:
        return root / f"{split}.txt"  # it cannot be read, which is found again


def _folders(root: Path, split: str, images: str, masks: str) -> tuple[Path, Path] | None:
    """Image and mask folder of a split, by the layouts of `FolderDataset`; None unless both are there."""
    candidates = [(root / images / split, root / masks / split), (root / split / images, root / split / masks)]
    if not any(folder.is_dir() for pair in candidates for folder in pair):
        candidates = [(root / images, root / masks)]
    return next((pair for pair in candidates if pair[0].is_dir() and pair[1].is_dir()), None)


def _of_list(root: Path, listed: Path, split: str) -> tuple[list[Pair], list[Finding]]:
    """Pairs of a list of `image mask` lines, and a finding for each line that cannot be used."""
    findings: list[Finding] = []
    pairs: list[Pair] = []
    lines: dict[Path, int] = {}
    try:
        text = listed.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return [], [_error("bad-list-line", split, listed, "is not UTF-8 text", "save the list as UTF-8")]
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parts = [part.strip() for part in (line.split("\t") if "\t" in line else line.split())]
        said = ""
        if len(parts) != 2:
            said = f"line {number}, '{line}', has {len(parts)} parts; write `image mask`, or a tab between them"
        paths = [root / part for part in parts]
        outside = [path for path in paths if not is_below(root, path)]
        missing = [path for path in paths if not path.is_file()]
        if not said and outside:
            said = f"line {number}: '{outside[0]}' lies outside '{root}'; entries are relative to it"
        if not said and missing:
            message = f"does not exist, but stands in line {number} of '{listed}'"
            remedy = "add the file, or remove the line"
            findings.append(_error("missing-file", split, missing[0], message, remedy))
            continue
        if not said and lines.setdefault(paths[0].resolve(), number) != number:
            said = f"line {number}: image '{parts[0]}' already stands in line {lines[paths[0].resolve()]}"
        if said:
            findings.append(_error("bad-list-line", split, listed, said, "correct or remove the line"))
        else:
            pairs.append((paths[0], paths[1]))
    if not pairs and not findings:
        remedy = "write one line `image mask` per sample"
        findings.append(_error("empty-split", split, listed, "the list is empty", remedy))
    return pairs, findings


def _refusal(split: str, error: DataError) -> list[Finding]:
    """Findings for a split that does not open, file by file where its error says which folders do not match."""
    text = str(error)
    if said := _ALONE.search(text):
        here, there = Path(said["file"]).parent, Path(said["folder"])
        folders = (here, there) if text.startswith("image") else (there, here)
        if all(folder.is_dir() for folder in folders) and (found := match(*folders, split)[1]):
            return found
    if text.startswith("no image in '") or "is empty" in text:
        return [Finding("empty-split", "error", split, split, text, "add images, or leave the split out")]
    if " exists, but '" in text:
        return [Finding("missing-folder", "error", split, split, text, "add the folder")]
    if "nothing but 0 and 255" in text:
        return [Finding("binary-255", "error", split, split, text, "set data.ids or data.ignore_ids")]
    return [Finding("unopened-split", "error", split, split, text, _AS_SAID)]


def _hint(stem: str, others: set[str]) -> str:
    """Names the file that is probably the partner: the only one whose stem holds this stem, or lies inside it."""
    like = [other for other in others if other and (other in stem or stem in other)]
    return f"; is '{like[0]}' its partner under another name?" if len(like) == 1 else ""


def _error(kind: str, split: str, file: Path, message: str, remedy: str) -> Finding:
    return Finding(kind, "error", split, str(file), message, remedy)
