"""The example loops run as a user runs them; each trains twice on digit scenes and leaves a plain network."""

import copy
import importlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from hs3seg.analysis import SupervisionPlan
from hs3seg.data import DigitScenes
from hs3seg.integrations.data import open_parts
from hs3seg.nn.maps import final_logits

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))
DATA: dict[str, Any] = {"num_images": 32, "size": (32, 64)}
STEPS = 20

pytest.importorskip("segmentation_models_pytorch")
pytest.importorskip("lightning")
pytest.importorskip("transformers")


def reopened_by_transformers(folder: Path) -> dict[str, Tensor]:
    from transformers import SegformerForSemanticSegmentation

    state: dict[str, Tensor] = SegformerForSemanticSegmentation.from_pretrained(folder / "net").state_dict()
    return state


# How each script's saved network is read, and a fresh network of its kind.
CASES: dict[str, tuple[Callable[[Path], dict[str, Tensor]], Callable[[ModuleType], nn.Module]]] = {
    "plain_pytorch": (
        lambda folder: torch.load(folder / "net.pt", weights_only=True),
        lambda script: script.make_net(11),
    ),
    "lightning_smp": (
        lambda folder: load_file(folder / "net.safetensors"),
        lambda script: script.make_net(11, pretrained=False),
    ),
    "transformers_trainer": (reopened_by_transformers, lambda script: script.make_net(DigitScenes.taxonomy.names)),
    "accelerate_loop": (
        lambda folder: load_file(folder / "net.safetensors"),
        lambda script: script.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=11),
    ),
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    yield
    for name in SCRIPTS:
        sys.modules.pop(name, None)


def test_every_script_has_a_case() -> None:
    assert sorted(CASES) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_has_at_most_sixty_lines(name: str) -> None:
    lines = (EXAMPLES / f"{name}.py").read_text().splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_trains_twice_and_saves_the_plain_network(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    script = importlib.import_module(name)
    read, make = CASES[name]
    net, losses = script.main(str(tmp_path), steps=STEPS, **DATA)

    assert len(losses) >= 2
    assert all(math.isfinite(loss) for loss in losses)
    half = len(losses) // 2
    if half >= 10:  # one loss per step
        for phase in (losses[:half], losses[half:]):
            assert np.mean(phase[-5:]) < np.mean(phase[:5])
    plan = SupervisionPlan.load(tmp_path / "plan.toml")
    assert plan.taxonomy_names == DigitScenes.taxonomy.names
    assert len(plan.stages) == 2

    saved, own, fresh = read(tmp_path), net.state_dict(), make(script)
    assert list(saved.keys() ^ fresh.state_dict().keys()) == []
    assert all(torch.equal(saved[key], own[key].cpu()) for key in own)
    if half < 10:  # the losses of the last steps alone say nothing
        images, labels = next(iter(DataLoader(open_parts(**DATA).val, 8)))
        assert _loss(net, images, labels) < _loss(fresh, images, labels) - 0.1
    hooks = [hook for module in net.modules() for hook in module._forward_hooks.values()]  # transformers has its own
    assert not [hook for hook in hooks if getattr(hook, "func", hook).__module__.startswith("hs3seg")]
    fresh.load_state_dict(saved)
    images = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for ours, theirs in zip(outputs(net.cpu(), images), outputs(fresh, images), strict=True):
            assert torch.equal(ours, theirs)


def outputs(net: nn.Module, images: Tensor) -> list[Tensor]:
    found = net.eval()(images)
    return list(found.values()) if isinstance(found, dict) else [found]


def test_script_runs_on_a_folder_from_the_shell(folder_data: Path, tmp_path: Path) -> None:
    script, out = EXAMPLES / "plain_pytorch.py", tmp_path / "out"
    words = [sys.executable, str(script), str(out), "--source", str(folder_data), "--steps", "2"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("last loss: ")
    assert SupervisionPlan.load(out / "plan.toml").num_classes == 3
    assert (out / "net.pt").stat().st_size > 0
    assert Image.open(next((folder_data / "masks" / "train").iterdir())).mode == "RGB"


def _loss(net: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        logits = final_logits(
            copy.deepcopy(net).train()(images)
        )  # BatchNorm by the batch: its averages are not there yet
    large = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear")
    return float(F.cross_entropy(large, labels, ignore_index=255))
