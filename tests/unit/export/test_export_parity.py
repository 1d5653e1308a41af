from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from hs3seg.export import export_onnx, export_openvino, export_program
from hs3seg.networks import create, fuse

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

K = 5
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "hrnet": lambda: create("hrnet_w18_small", K),
    "ocr": lambda: create("hrnet_w18_small_ocr", K),
    "fused": lambda: fuse(create("hrnet_w18_small_ocr", K), {"stage2": 2, "stage3": 3}, mid=32),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_our_networks_give_eagers_logits_in_every_format(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    net = NETWORKS[name]()
    with torch.no_grad():
        net.train()(torch.randn(4, 3, 96, 96))  # running statistics
    example = torch.randn(1, 3, 96, 128)
    for export, ending, limit in (
        (export_program, "pt2", 0.0),
        (export_onnx, "onnx", 1e-4),
        (export_openvino, "xml", 1e-4),
    ):
        report = export(net, tmp_path / f"a.{ending}", example)
        assert report.max_difference <= limit
        assert len(report.shapes) == 3
