"""Prediction on files, folders and videos with a weights file; its network is as it was initialised."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from hs3seg.analysis import no_supervision
from hs3seg.builders import describe, load_trained, make_supervised
from hs3seg.config import load_config
from hs3seg.engine import save_weights
from hs3seg.errors import ConfigError, DataError, NetworkError
from hs3seg.pipeline.predict import predict_step
from hs3seg.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_names(["road", "car", "sky"])


def make_weights(folder: Path, config: Path, *words: str) -> Path:
    settings = load_config(config, [*words, "--train.precision", "float32"])
    plan = no_supervision(TAXONOMY.names)
    model = make_supervised(settings, plan, TAXONOMY)
    # A random network finds one class nearly everywhere: its classes are made equally likely on noise.
    with torch.no_grad():
        net = model.net.eval()
        channels = len(net.mean)
        logits = net(torch.randn(1, channels, 64, 64, generator=torch.Generator().manual_seed(1)))
        last = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.out_channels == 3][-1]
        if last.bias is not None:
            last.bias -= logits.mean((0, 2, 3))
    save_weights(folder / "weights.safetensors", model, describe(settings, plan, TAXONOMY, {}))
    return folder / "weights.safetensors"


@pytest.fixture(scope="module")
def weights(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights"), config)


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8))
    return np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))


def write(path: Path, seed: int = 0, **size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, **size)).save(path)
    return path


def ids_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def expected(weights: Path, path: Path) -> np.ndarray:
    """Class ids, straight from the network."""
    trained = load_trained(weights)
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        logits = trained.model.net(((pixels - trained.mean.view(3, 1, 1)) / trained.std.view(3, 1, 1))[None])
    ids: np.ndarray = F.interpolate(logits, size=pixels.shape[-2:], mode="bilinear")[0].argmax(0).numpy()
    return ids


def same(first: np.ndarray, second: np.ndarray) -> bool:
    """All but single pixels where two classes are equally likely."""
    return first.shape == second.shape and bool((first == second).mean() > 0.998)


def test_the_folder_of_images_in_batches(weights: Path, tmp_path: Path) -> None:
    sizes = [(48, 64), (64, 48), (48, 64), (40, 40), (64, 48), (48, 64)]
    for number, (height, width) in enumerate(sizes):
        write(tmp_path / "in" / f"Bild {number} ä.png", number, height=height, width=width)
    done = predict_step(weights, [tmp_path / "in"], tmp_path / "out", output=("palette", "probability"), batch_size=2)
    assert (done["num_images"], done["exit_code"], done["failed"], done["tiled"]) == (6, 0, [], [])
    assert sorted(done["files"]) == sorted(str(path) for path in (tmp_path / "out").iterdir())
    seen = set()
    for number in range(6):
        name = f"Bild {number} ä"
        found = ids_of(tmp_path / "out" / f"{name}.png")
        assert same(found, expected(weights, tmp_path / "in" / f"{name}.png"))
        with np.load(tmp_path / "out" / f"{name}-probability.npz") as file:
            assert same(file["probabilities"].argmax(0), found)
        seen |= set(np.unique(found))
    assert seen == {0, 1, 2}


def test_damaged_images_are_named_and_the_others_done(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        write(tmp_path / "in" / f"{number}.png", number)
    whole = (tmp_path / "in" / "1.png").read_bytes()
    (tmp_path / "in" / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "3.png").write_text("no image")
    done = predict_step(weights, [tmp_path / "in" / "*.png"], tmp_path / "out", batch_size=4)
    assert (done["num_images"], done["exit_code"]) == (3, 2)
    assert [Path(entry["file"]).name for entry in done["failed"]] == ["1.png", "3.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "2.png", "4.png"]
    said = capsys.readouterr().err
    assert "2 inputs could not be segmented, the others are done" in said
    assert "3.png: not an image file" in said
    json.dumps(done, allow_nan=False)


def test_what_is_there_is_left_out(weights: Path, tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "in" / f"{number}.png", number)
    out = tmp_path / "out"
    predict_step(weights, [tmp_path / "in"], out, output="both")
    (out / "1-overlay.png").unlink()
    (out / "2.png").write_bytes(b"kept")
    done = predict_step(weights, [tmp_path / "in"], out, output="both", skip_existing=True)
    assert (done["num_images"], done["num_skipped"]) == (1, 2)
    assert (out / "1-overlay.png").exists()
    assert (out / "2.png").read_bytes() == b"kept"
    assert predict_step(weights, [tmp_path / "in"], out, output="both")["num_images"] == 3


def test_large_images_are_cut_and_the_result_says_so(weights: Path, tmp_path: Path) -> None:
    large, small = write(tmp_path / "large.png", 1, height=400, width=320), write(tmp_path / "small.png", 2)
    done = predict_step(weights, [large, small], tmp_path / "out", tile=(256, 200), overlap=100)
    assert done["tiled"] == [{"file": str(large), "tile": [256, 256], "overlap": 128, "need_gib": None}]
    tiled = ids_of(tmp_path / "out" / "large.png")
    assert tiled.shape == (400, 320)
    # The network reaches further than the overlap, so that some pixels differ.
    assert (tiled == expected(weights, large)).mean() > 0.8
    assert same(ids_of(tmp_path / "out" / "small.png"), expected(weights, small))


def test_tiles_by_memory(weights: Path, tmp_path: Path) -> None:
    large = write(tmp_path / "large.png", 1, height=640, width=800)
    done = predict_step(weights, [large], tmp_path / "a", memory_gib=0.25)
    (entry,) = done["tiled"]
    assert entry["need_gib"] > 0.25
    assert entry["tile"][1] < 800
    assert ids_of(tmp_path / "a" / "large.png").shape == (640, 800)
    done = predict_step(weights, [large], tmp_path / "b", memory_gib=0.01)
    assert done["exit_code"] == 2
    assert "0.01 GiB are allowed" in done["failed"][0]["error"]


def test_the_config_may_be_overridden(weights: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", 1)
    predict_step(weights, [path], tmp_path / "small", overrides=["--augment.resize", "8,8"])
    predict_step(weights, [path], tmp_path / "own")
    small, own = ids_of(tmp_path / "small" / "a.png"), ids_of(tmp_path / "own" / "a.png")
    assert small.shape == own.shape
    assert not same(small, own)


def test_a_video(weights: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(7):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode(None))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    inputs = [path, tmp_path / "broken.mp4"]
    done = predict_step(weights, inputs, out, output="palette,index,overlay,colour", batch_size=3)
    assert (done["num_videos"], done["num_frames"], done["num_images"], done["exit_code"]) == (1, 7, 0, 2)
    assert done["files"] == [str(out / name) for name in ("film", "film-overlay.mp4", "film-colour.mp4")]
    assert "broken.mp4: cannot be opened as a video" in done["failed"][0]["error"]
    wanted = [f"{n:06}{ending}" for n in range(7) for ending in ("-index.png", ".png")]
    assert sorted(p.name for p in (out / "film").iterdir()) == sorted(wanted)
    with av.open(str(out / "film-colour.mp4")) as container:
        assert container.streams.video[0].average_rate == 10
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == 7
    colours = np.array(TAXONOMY.colours)[ids_of(out / "film" / "000004.png")]
    assert np.abs(shown[4].astype(int) - colours).mean() < 20
    assert np.abs(shown[4].astype(int) - colours).mean() < np.abs(shown[0].astype(int) - colours).mean()

    (out / "film" / "000005.png").unlink()
    again = predict_step(weights, [path], out, output="palette,index,overlay,colour", skip_existing=True)
    assert (again["num_frames"], again["num_skipped"], again["exit_code"]) == (1, 6, 0)
    assert (out / "film" / "000005.png").exists()


@pytest.fixture(scope="module")
def rgbd_weights(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["--network.name", "sagate_resnet101", "--data.kind", "nyuv2", "--data.depth", "raw"]
    return make_weights(tmp_path_factory.mktemp("rgbd"), config, *words)


def test_rgb_and_depth(rgbd_weights: Path, weights: Path, tmp_path: Path) -> None:
    images = [write(tmp_path / "rgb" / name, i) for i, name in enumerate(("1.png", "2.png", "x/3.png", "4.png"))]
    with pytest.raises(NetworkError, match=r"takes 4 channels, an image file has 3.*--depth FOLDER"):
        predict_step(rgbd_weights, images, tmp_path / "out")
    with pytest.raises(NetworkError, match=r"takes RGB images only"):
        predict_step(weights, images, tmp_path / "out", depth=tmp_path)
    with pytest.raises(DataError, match=r"depth folder '.*none' does not exist"):
        predict_step(rgbd_weights, images, tmp_path / "out", depth=tmp_path / "none")
    for name, size in {"1": (48, 64), "2": (40, 64), "x/3": (48, 64)}.items():
        path = tmp_path / "depth" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.parent.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(5).integers(0, 256, size, np.uint8)).save(path)
    done = predict_step(rgbd_weights, [tmp_path / "rgb"], tmp_path / "out", depth=tmp_path / "depth", batch_size=2)
    assert done["num_images"] == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.png", "3.png"]
    errors = " ".join(entry["error"] for entry in done["failed"])
    assert "2.png: is 64x40 pixels, its image" in errors
    assert "4.png' has no depth" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size 0; must be at least 1"),
        ({"memory_gib": 0.0}, "memory_gib = 0.0"),
        ({"memory_gib": float("nan")}, "memory_gib = nan"),
        ({"overlap": 64}, "overlap 64 is given without a tile"),
        ({"tile": (128, 128), "overlap": 128}, "allowed: 0..64"),
        ({"output": "mask"}, "unknown output 'mask'"),
        ({"ids": (1,)}, "1 ids from 1 to 1 for 3 classes"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str, weights: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=message):
        predict_step(weights, [path], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_the_background_thread_and_keeps_what_is_whole(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hs3seg.pipeline.predict.outputs import Outputs

    for number in range(4):
        write(tmp_path / "in" / f"{number}.png", number)
    save = Outputs.save

    def interrupted(self: Outputs, name: str, *rest: Any) -> Any:
        if name == "2":
            raise KeyboardInterrupt
        return save(self, name, *rest)

    monkeypatch.setattr(Outputs, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_step(weights, [tmp_path / "in"], tmp_path / "out")
    monkeypatch.setattr(Outputs, "save", save)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png"]
    done = predict_step(weights, [tmp_path / "in"], tmp_path / "out", skip_existing=True)
    assert (done["num_images"], done["num_skipped"]) == (2, 2)
