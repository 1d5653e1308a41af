"""Networks for other runtimes: every file is compared with the network before it is kept."""

from hs3seg.export.certificate import Certificate, certify, find_idle
from hs3seg.export.onnx import export_onnx
from hs3seg.export.openvino import export_openvino, quantize
from hs3seg.export.parity import ExportReport
from hs3seg.export.pretrained import PretrainedSegmenter
from hs3seg.export.program import export_program
from hs3seg.export.runners import Runner, load_runner

__all__ = [
    "Certificate",
    "ExportReport",
    "PretrainedSegmenter",
    "Runner",
    "certify",
    "export_onnx",
    "export_openvino",
    "export_program",
    "find_idle",
    "load_runner",
    "quantize",
]
