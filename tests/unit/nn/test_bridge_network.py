import torch
from torch import Tensor, nn

from hs3seg.nn.bridge import BridgedNetwork
from hs3seg.nn.resize import aligns_corners

LOGITS = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))


class Says(nn.Module):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": LOGITS[: len(images)]}


class Attends(Says):
    def multi_scale(self, images: Tensor, scales: tuple[float, ...]) -> Tensor:
        return LOGITS[: len(images)] * sum(scales)


def test_probabilities_of_joined_classes_are_summed() -> None:
    found = BridgedNetwork(Says(), (2, 0, 2, 255), 3)(torch.zeros(2, 3, 5, 6)).softmax(1)
    p = LOGITS.softmax(1)
    kept = 1 - p[:, 3]
    torch.testing.assert_close(found[:, 0], p[:, 1] / kept)
    torch.testing.assert_close(found[:, 2], (p[:, 0] + p[:, 2]) / kept)
    assert (found[:, 1] == 0).all()


def test_the_identity_changes_nothing() -> None:
    found = BridgedNetwork(Says(), (0, 1, 2, 3), 4)(torch.zeros(2, 3, 5, 6))
    torch.testing.assert_close(found, LOGITS)


def test_hierarchical_attention_stays_in_reach() -> None:
    images = torch.zeros(2, 3, 5, 6)
    torch.testing.assert_close(BridgedNetwork(Attends(), (0, 1, 2, 3), 4).multi_scale(images, (0.5, 1.0)), LOGITS * 1.5)
    assert not hasattr(BridgedNetwork(Says(), (0, 1, 2, 3), 4), "multi_scale")


def test_logits_are_enlarged_as_those_of_the_network_are() -> None:
    net = Says()
    assert not aligns_corners(BridgedNetwork(net, (0, 1, 2, 3), 4))
    net.align_corners = True
    assert aligns_corners(BridgedNetwork(net, (0, 1, 2, 3), 4))
