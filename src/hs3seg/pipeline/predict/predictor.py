"""Every input through the network in batches; what fails is kept for the end."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hs3seg.data.video import VideoWriter, probe_video
from hs3seg.engine import Reporter
from hs3seg.engine.progress import Task
from hs3seg.errors import DataError
from hs3seg.pipeline.predict.depth import DepthFolder
from hs3seg.pipeline.predict.inputs import Item
from hs3seg.pipeline.predict.outputs import Outputs
from hs3seg.pipeline.predict.reading import read_images, read_video
from hs3seg.pipeline.predict.segment import Layout, Segmenter


@dataclass
class Done:
    """What one process has done."""

    num_images: int = 0
    num_videos: int = 0
    num_frames: int = 0
    num_skipped: int = 0
    files: list[str] = field(default_factory=list)
    tiled: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)


class Predictor:
    """Runs a process's share of the inputs.

    Args:
        segmenter: Makes the scores.
        outputs: Writes the results.
        done: Filled.
        batch_size: Images at once, and so many decoded ahead.
        depth: Files of the further channels; None = the network takes RGB.
        skip_existing: Leave out what is there.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        outputs: Outputs,
        done: Done,
        batch_size: int,
        depth: DepthFolder | None,
        skip_existing: bool,
    ) -> None:
        self._segmenter, self._outputs, self._done = segmenter, outputs, done
        self._batch_size, self._depth, self._skip = batch_size, depth, skip_existing

    def run(self, items: Sequence[Item], reporter: Reporter) -> None:
        """All images, then all videos."""
        images = [item for item in items if not item.is_video]
        videos = [item for item in items if item.is_video]
        if self._skip:
            kept = [item for item in images if not all(p.exists() for p in self._outputs.results(item.name, False))]
            self._done.num_skipped += len(images) - len(kept)
            images = kept
        frames = {item: _num_frames(item) for item in videos}
        with reporter.task("predict", len(images) + sum(frames.values())) as task:
            self._images(images, task)
            for item in videos:
                self._video(item, frames[item], task)

    def _images(self, items: Sequence[Item], task: Task) -> None:
        """Images are collected by the size that the network sees; a full batch, or the fullest one, is run."""
        waiting: dict[tuple[int, int], list[tuple[Item, Tensor]]] = {}
        for item, image in read_images(items, self._depth, self._batch_size):
            try:
                if isinstance(image, DataError):
                    raise image
                layout = self._segmenter.layout((image.shape[-2], image.shape[-1]))
            except DataError as error:
                self._failed(item, error)
                task.advance(1)
                continue
            size = self._segmenter.network_size(image)
            batch = waiting.setdefault(size, [])
            batch.append((item, image))
            if len(batch) >= layout.batch_size:
                self._batch(waiting.pop(size), layout, task)
            elif sum(map(len, waiting.values())) > 2 * self._batch_size:
                fullest = max(waiting, key=lambda key: len(waiting[key]))
                self._flush(waiting.pop(fullest), task)
        for batch in waiting.values():
            self._flush(batch, task)

    def _flush(self, batch: list[tuple[Item, Tensor]], task: Task) -> None:
        image = batch[0][1]
        self._batch(batch, self._segmenter.layout((image.shape[-2], image.shape[-1])), task)

    def _batch(self, batch: Sequence[tuple[Item, Tensor]], layout: Layout, task: Task) -> None:
        results = self._segmenter.segment([image for _, image in batch], layout.tiling)
        for (item, image), strips in zip(batch, results, strict=True):
            self._outputs.save(item.name, image, strips, self._outputs.kinds)
            self._done.num_images += 1
            self._done.files += map(str, self._outputs.results(item.name, False))
            if layout.tiling is not None:
                self._done.tiled.append(_tiled(item, layout))
            task.advance(1)

    def _video(self, item: Item, expected: int, task: Task) -> None:
        try:
            count = self._frames(item, task)
        except DataError as error:
            self._failed(item, error)
            return
        self._done.files += map(str, self._outputs.results(item.name, True))
        self._done.num_videos += 1
        if count < expected:  # the number in the header was an estimate
            task.advance(expected - count)

    def _frames(self, item: Item, task: Task) -> int:
        """Number of frames of a video; its numbered files and videos are written."""
        outputs = self._outputs
        wanted = {kind: outputs.video_path(item.name, kind) for kind in outputs.video_kinds}
        if self._skip:
            wanted = {kind: path for kind, path in wanted.items() if not path.exists()}
        count = 0
        with ExitStack() as stack:
            fps = probe_video(item.path).fps
            writers = {kind: stack.enter_context(VideoWriter(path, fps)) for kind, path in wanted.items()}
            for frames, layout in self._frame_batches(item):
                numbers = [count + i for i in range(len(frames))]
                count += len(frames)
                missing = [n for n in numbers if writers or not self._has_frame(item.name, n)]
                images = [frames[n - numbers[0]] for n in missing]
                results = self._segmenter.segment(images, layout.tiling) if images else iter(())
                for number, image, strips in zip(missing, images, results, strict=True):
                    name = f"{item.name}/{number:06}"
                    ids = outputs.save(name, image, strips, outputs.frame_kinds)
                    for kind, writer in writers.items():
                        writer.add(outputs.pixels(kind, image, ids))
                self._done.num_frames += len(missing)
                self._done.num_skipped += len(numbers) - len(missing)
                task.advance(len(numbers))
        if layout.tiling is not None:
            self._done.tiled.append(_tiled(item, layout))
        return count

    def _frame_batches(self, item: Item) -> Iterator[tuple[list[Tensor], Layout]]:
        frames: list[Tensor] = []
        for frame in read_video(item.path, self._batch_size):
            layout = self._segmenter.layout((frame.shape[-2], frame.shape[-1]))
            frames.append(frame)
            if len(frames) == layout.batch_size:
                yield frames, layout
                frames = []
        if frames:
            yield frames, layout

    def _has_frame(self, name: str, number: int) -> bool:
        return self._skip and all(path.exists() for path in self._outputs.frame_paths(name, number))

    def _failed(self, item: Item, error: DataError) -> None:
        self._done.failed.append({"file": str(item.path), "error": str(error)})


def _num_frames(item: Item) -> int:
    try:
        return max(1, probe_video(item.path).num_frames)
    except DataError:  # reported when its turn comes
        return 1


def _tiled(item: Item, layout: Layout) -> dict[str, Any]:
    tiling = layout.tiling
    assert tiling is not None
    need = None if layout.need_bytes is None else round(layout.need_bytes / 2**30, 2)
    return {
        "file": str(item.path),
        "tile": [tiling.height, tiling.width],
        "overlap": tiling.overlap,
        "need_gib": need,
    }
