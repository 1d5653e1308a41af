import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import hs3seg
from hs3seg.errors import CheckpointError, NetworkError
from hs3seg.export import PretrainedSegmenter, load_runner
from hs3seg.networks import create, fuse, save_public_checkpoint
from hs3seg.taxonomy import Taxonomy

K = 3
TAXONOMY = Taxonomy.from_names(("sky", "road", "car"))


def fused() -> nn.Module:
    return fuse(create("hrnet_w18_small_ocr", K, mid=16, key=8), {"stage3": 2}, mid=16, key=8)


def images() -> torch.Tensor:
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    folder = tmp_path_factory.mktemp("saved")
    net = create("hrnet_w18_small", K)
    PretrainedSegmenter(net, "hrnet_w18_small", taxonomy=TAXONOMY).save_pretrained(folder)
    return net.eval(), folder


def test_a_network_comes_back_from_its_folder_bit_equal(saved: tuple[nn.Module, Path]) -> None:
    net, folder = saved
    found = PretrainedSegmenter.from_pretrained(folder).eval()
    assert torch.equal(found(images()), net(images()))
    assert found.taxonomy == TAXONOMY
    assert found.mean == tuple(net.mean)
    assert found.std == tuple(net.std)


def test_the_folder_says_what_it_holds(saved: tuple[nn.Module, Path]) -> None:
    net, folder = saved
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    config = json.loads((folder / "config.json").read_text())
    assert config["network"] == {"name": "hrnet_w18_small", "num_classes": K}
    assert Taxonomy.from_dict(config["taxonomy"]) == TAXONOMY
    assert load_file(folder / "model.safetensors").keys() == net.state_dict().keys()


def test_the_folder_runs_as_any_exported_file(saved: tuple[nn.Module, Path]) -> None:
    net, folder = saved
    runner = load_runner(folder)
    assert torch.equal(runner(images()), net(images()))
    assert runner.description["taxonomy"] == TAXONOMY.to_dict()


def test_a_fused_network_with_options_comes_back(tmp_path: Path) -> None:
    net = fused().eval()
    PretrainedSegmenter(net, "hrnet_w18_small_ocr", {"mid": 16, "key": 8}).save_pretrained(tmp_path)
    found = PretrainedSegmenter.from_pretrained(tmp_path).eval()
    assert torch.equal(found(images()), net(images()))
    assert found.net.num_groups == {"stage3": 2}
    assert found.taxonomy is None


def test_channels_last_and_where_weights_came_from_leave_no_trace(tmp_path: Path) -> None:
    source = create("hrnet_w18_small", K)
    save_public_checkpoint(source, tmp_path / "trunk.pth", "imagenet")
    options = {"pretrained": str(tmp_path / "trunk.pth"), "in_channels": 3}
    net = create("hrnet_w18_small", K, **options).to(memory_format=torch.channels_last).eval()
    PretrainedSegmenter(net, "hrnet_w18_small", options).save_pretrained(tmp_path / "saved")
    text = (tmp_path / "saved" / "config.json").read_text()
    assert "trunk.pth" not in text
    (tmp_path / "trunk.pth").unlink()
    # Files written before had it.
    config = json.loads(text)
    config["network"]["options"]["pretrained"] = "trunk.pth"
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    found = PretrainedSegmenter.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(found(images()), net.to(memory_format=torch.contiguous_format)(images()))


def test_normalisation_of_its_own_comes_back(tmp_path: Path) -> None:
    net: Any = create("hrnet_w18_small", K)
    net.mean, net.std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    PretrainedSegmenter(net, "hrnet_w18_small").save_pretrained(tmp_path)
    found = PretrainedSegmenter.from_pretrained(tmp_path)
    assert (found.mean, found.std) == (net.mean, net.std)


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("hrnet_w18", {}, "hrnet_w18"),
        ("hrnet_w18_small", {"align_corners": True}, "logits"),
        ("hrnet_w18_smal", {}, "hrnet_w18_small"),
    ],
)
def test_a_recipe_that_makes_another_network_is_refused(
    tmp_path: Path, name: str, options: dict[str, Any], found: str
) -> None:
    model = PretrainedSegmenter(create("hrnet_w18_small", K), name, options)
    with pytest.raises(NetworkError, match=found):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_saving_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    model = PretrainedSegmenter(create("hrnet_w18_small", K), "hrnet_w18_small")
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    model.save_pretrained(tmp_path)
    assert torch.equal(torch.rand(1), expected)


def test_other_peoples_networks_and_stage_heads_are_refused() -> None:
    with pytest.raises(NetworkError, match="Conv2d"):
        PretrainedSegmenter(nn.Conv2d(3, K, 1), "hrnet_w18_small")
    with pytest.raises(NetworkError, match=r"strip\(\)"):
        PretrainedSegmenter(hs3seg.supervise(create("hrnet_w18_small", K)), "hrnet_w18_small")
    with pytest.raises(NetworkError, match="taxonomy 2"):
        PretrainedSegmenter(create("hrnet_w18_small", K), "hrnet_w18_small", taxonomy=Taxonomy.from_names("ab"))


def test_damaged_folders_say_what_is_wrong(saved: tuple[nn.Module, Path], tmp_path: Path) -> None:
    config, weights = (saved[1] / name for name in ("config.json", "model.safetensors"))
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        PretrainedSegmenter.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes(config.read_bytes())
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        PretrainedSegmenter.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="whole safetensors"):
        PretrainedSegmenter.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights.read_bytes())
    values = json.loads(config.read_text())
    for changed, message in (
        ({**values, "format": "other"}, "other"),
        ({**values, "network": {"name": "hrnet_w18_small"}}, "num_classes"),
        ({**values, "network": values["network"] | {"num_classes": 4}}, "shape"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(CheckpointError, match=message):
            PretrainedSegmenter.from_pretrained(tmp_path)


def test_a_hub_that_cannot_be_reached_is_explained(
    saved: tuple[nn.Module, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match="give a folder"):
        PretrainedSegmenter.from_pretrained("some-one/some-net", cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(CheckpointError, match="give a folder"):
        PretrainedSegmenter.from_pretrained("no/such/folder")

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi.create_repo", refuse)
    with pytest.raises(CheckpointError, match=r"no route.*save_pretrained\(folder\)"):
        PretrainedSegmenter(saved[0], "hrnet_w18_small").push_to_hub("some-one/some-net")


def test_pushing_uploads_the_folder(saved: tuple[nn.Module, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: dict[str, bytes] = {}

    class Repository:
        repo_id = "some-one/some-net"

    def upload(*_: object, folder_path: Path, **__: object) -> str:
        uploaded.update({path.name: path.read_bytes() for path in folder_path.iterdir()})
        return "commit"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi.create_repo", lambda *_, **__: Repository)
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi.upload_folder", upload)
    model = PretrainedSegmenter(saved[0], "hrnet_w18_small", taxonomy=TAXONOMY)
    assert model.push_to_hub("some-one/some-net") == "commit"
    for name in ("config.json", "model.safetensors"):
        assert uploaded[name] == (saved[1] / name).read_bytes()
