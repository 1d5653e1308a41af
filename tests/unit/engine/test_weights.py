import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hs3seg.engine.weights import hash_weights, load_into, load_state, read_weights, save_state, save_weights
from hs3seg.errors import CheckpointError


def test_round_trip_keeps_bits_and_description(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    save_weights(tmp_path / "w.safetensors", net, {"config": {"seed": 3}})
    tensors, description = read_weights(tmp_path / "w.safetensors")
    assert description == {"config": {"seed": 3}}
    assert all(torch.equal(tensors[name], value) for name, value in net.state_dict().items())
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    load_into(other, tensors, "w")
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), net.state_dict().values(), strict=True))


def test_a_module_under_two_names_is_written_under_both(tmp_path: Path) -> None:
    shared = nn.BatchNorm2d(4)
    net = nn.ModuleDict({"a": shared, "b": shared})
    save_weights(tmp_path / "w.safetensors", net, {})
    tensors, _ = read_weights(tmp_path / "w.safetensors")
    assert set(tensors) == set(net.state_dict())
    other = nn.BatchNorm2d(4)
    load_into(nn.ModuleDict({"a": other, "b": other}), tensors, "w")
    assert torch.equal(other.weight, shared.weight)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", nn.Linear(2, 3), {})
    tensors, _ = read_weights(tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="another network.*1 of another shape.*weight"):
        load_into(nn.Linear(4, 3), tensors, "w")
    with pytest.raises(CheckpointError, match="2 names missing"):
        load_into(nn.Sequential(nn.Linear(2, 3)), tensors, "w")


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, nn.Linear(20, 30), {})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="truncated"):
        read_weights(path)


def test_foreign_safetensors_are_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="not written by hs3seg"):
        read_weights(tmp_path / "x.safetensors")


class Attack:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> Any:
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 19280])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    path, net = tmp_path / "w.safetensors", nn.Linear(2, 2)
    save_weights(path, net, {"text": ""})
    room = length - int.from_bytes(path.read_bytes()[:8], "little")
    save_weights(path, net, {"text": "x" * room})
    assert int.from_bytes(path.read_bytes()[:8], "little") == length
    tensors, description = read_weights(path)
    assert description == {"text": "x" * room}
    assert torch.equal(tensors["weight"], net.weight)


def test_no_code_in_a_pickle_ever_runs(tmp_path: Path) -> None:
    victim = tmp_path / "ran"
    for name, write in {
        "torch": lambda path: torch.save({"identity": Attack(victim)}, path),
        "plain": lambda path: path.write_bytes(pickle.dumps(Attack(victim))),
    }.items():
        path = tmp_path / name
        write(path)
        with pytest.raises(CheckpointError, match="pickle"):
            read_weights(path)
        with pytest.raises(CheckpointError, match="not a training state"):
            load_state(path)
    assert not victim.exists()


def test_state_round_trip_and_truncation(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_state(path, {"identity": {"arm": "x"}, "step": 3, "model": {"w": torch.arange(1000.0)}})
    assert torch.equal(load_state(path)["model"]["w"], torch.arange(1000.0))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="not a training state"):
        load_state(path)


def test_the_hash_is_of_the_bits_and_names() -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 3)
    first = hash_weights(net)
    assert first == hash_weights(net.to(memory_format=torch.channels_last))
    with torch.no_grad():
        net.bias[0] = torch.nextafter(net.bias[0], torch.tensor(9.0))
    assert hash_weights(net) != first
    assert hash_weights(nn.Sequential(net)) != hash_weights(net)


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 3)
    for number in range(8):
        save_weights(tmp_path / f"{number}.safetensors", net, {"b": 1, "a": [number // 99]})
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("content", [b"", b"abc", b"0", b".", b"u.", b"\x80\x02h\x00.", b"PK"])
def test_junk_is_no_training_state(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a training state that can be trusted \(.+\)"):
        load_state(tmp_path / "state.pt")
