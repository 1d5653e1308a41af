"""FSDP2: parameters sharded over two gloo processes train as in one."""

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

import hs3seg

rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, images):
        return self.head(self.second(self.first(images)))


def make():
    torch.manual_seed(0)
    groups = hs3seg.Grouping.from_labels([0, 0, 1, 1])
    plan = hs3seg.SupervisionPlan(tuple("abcd"), (hs3seg.analysis.StagePlan("first", groups),))
    model = hs3seg.supervise(Net(), plan=plan, example=torch.zeros(1, 3, 32, 32))
    for module in model.modules():  # batch statistics would be those of a share of the batch
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model, hs3seg.HierarchicalLoss(plan)


torch.manual_seed(1)
images, labels = torch.randn(4, 3, 32, 32), torch.randint(0, 4, (4, 32, 32))
whole, loss = make()
loss(whole(images), labels).backward()

sharded, loss = make()
for part in (sharded.net.first, sharded.net.second):
    fully_shard(part, mesh=mesh)
fully_shard(sharded, mesh=mesh)
assert isinstance(sharded, FSDPModule)
share = slice(2 * rank, 2 * rank + 2)
optimizer = torch.optim.SGD(sharded.parameters(), lr=0.1)
loss(sharded(images[share]), labels[share]).backward()
for (name, one), (other, own) in zip(whole.named_parameters(), sharded.named_parameters(), strict=True):
    assert name == other
    assert isinstance(own, DTensor), name
    torch.testing.assert_close(own.grad.full_tensor(), one.grad, rtol=1e-4, atol=1e-6, msg=name)
optimizer.step()
optimizer.zero_grad()
loss(sharded(images[share]), labels[share]).backward()
net = sharded.strip()
assert not any("heads" in name for name, _ in net.named_parameters())
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def test_sharded_parameters_get_the_gradients_of_the_whole_network(tmp_path: Path) -> None:
    words = [sys.executable, "-c", CODE]
    processes = [
        subprocess.Popen([*words, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in processes:
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err[-3000:]
