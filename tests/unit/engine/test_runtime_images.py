import pytest
import torch
from torchvision.transforms.v2 import functional as F

from hs3seg.engine import Runtime
from hs3seg.errors import ConfigError


@pytest.mark.parametrize("wanted", ["yes", "no"])
@pytest.mark.parametrize("given", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_batch_is_normalised_into_the_layout_of_the_run(
    wanted: str, given: torch.memory_format, channels: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, channels, 6, 7), dtype=torch.uint8, generator=generator)
    pixels = pixels.contiguous(memory_format=given)
    before = pixels.clone()
    mean, std = torch.rand(channels, generator=generator), torch.rand(channels, generator=generator) + 0.1
    found = Runtime("float32", wanted).images(pixels, mean, std)  # type: ignore[arg-type]
    oracle = F.normalize(F.to_dtype(pixels, torch.float32, scale=True), mean.tolist(), std.tolist())
    torch.testing.assert_close(found, oracle)
    layout = torch.channels_last if wanted == "yes" else torch.contiguous_format
    assert found.is_contiguous(memory_format=layout)
    assert torch.equal(pixels, before)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="of a machine without a GPU")
def test_half_precision_that_a_cpu_cannot_scale_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"precision = 'fp16' on a CPU.*'bf16' or 'float32'"):
        Runtime("fp16")
