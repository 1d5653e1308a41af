from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hs3seg.errors import NetworkError
from hs3seg.nn.maps import Layout, final_logits, find_layout, layouts_of, merge_maps, tensors_of

IMAGE = (96, 160)


@dataclass
class Output:
    hidden: Tensor
    name: str
    more: dict[str, list[Tensor]]


def numbered(*shape: int) -> Tensor:
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


@given(stride=st.sampled_from([2, 4, 8, 14, 16, 32]), channels=st.integers(1, 9), up=st.booleans())
def test_all_ways_to_hold_a_map_give_the_same_map(stride, channels, up):
    sides = [-(-side // stride) if up else side // stride for side in IMAGE]
    wanted = numbered(2, channels, *sides)
    tokens = wanted.flatten(2).transpose(1, 2)
    with_class = torch.cat([torch.full((2, 1, channels), -1.0), tokens], 1)
    last = wanted.permute(0, 2, 3, 1)
    for tensor in (wanted, tokens, with_class, *([last] if channels < sides[0] else [])):
        layout = find_layout(tensor, IMAGE)
        assert layout is not None
        assert layout.size(tensor, IMAGE) == tuple(sides)
        assert torch.equal(layout.read(tensor, IMAGE), wanted)


def test_tokens_of_an_image_of_another_size_are_read_by_the_same_layout():
    layout = find_layout(torch.zeros(1, 1 + 6 * 10, 5), IMAGE)
    assert layout is not None
    assert layout.prefix == 1
    assert layout.read(torch.zeros(3, 1 + 4 * 7, 5), (64, 112)).shape == (3, 5, 4, 7)


def test_tokens_rounded_down_are_read_though_the_example_left_it_open():
    layout = find_layout(torch.zeros(1, 6 * 10, 5), IMAGE)
    assert layout is not None
    for size, grid in (((64, 112), (4, 7)), ((70, 120), (4, 7)), ((70, 120), (5, 8))):
        tensor = torch.zeros(3, grid[0] * grid[1], 5)
        assert layout.size(tensor, size) == grid
        assert layout.read(tensor, size).shape == (3, 5, *grid)
    with pytest.raises(NetworkError, match="29 tokens .* no grid of patches of 16 pixels in an image of 70x120"):
        layout.read(torch.zeros(3, 29, 5), (70, 120))


def test_attention_weights_beside_tokens_are_no_map():
    for columns in (60, 15):  # all keys, and keys that were reduced
        output = (torch.zeros(2, 60, 8), torch.zeros(2, 4, 60, columns))
        assert layouts_of(output, IMAGE, batch=2) == (Layout("tokens", 16),)
    alone = layouts_of(torch.zeros(2, 4, 60, 15), IMAGE, batch=2)
    assert alone == (Layout(),)
    # Queries beside a map whose rows are as many: the map stays one.
    assert layouts_of((torch.zeros(2, 15, 8), torch.zeros(2, 4, 15, 25)), (90, 150), batch=2) == (Layout(index=1),)


@pytest.mark.parametrize("tensor", [torch.zeros(2, 33, 5), torch.zeros(2, 60, 5, dtype=torch.int64), torch.zeros(2, 9)])
def test_what_is_no_map_has_no_layout(tensor):
    assert find_layout(tensor, IMAGE) is None


def test_maps_are_found_in_nested_outputs_and_windows_and_queries_are_not():
    small, large = torch.zeros(2, 3, 6, 10), torch.ones(2, 4, 12, 20)
    windows, queries = torch.zeros(12, 3, 8, 8), torch.zeros(2, 60, 7)
    output = Output(small, "x", {"windows": [windows, large], "queries": [queries]})
    assert len(list(tensors_of(output))) == 4
    layouts = layouts_of(output, IMAGE, batch=2)
    assert [layout.index for layout in layouts] == [0, 2]
    merged = merge_maps(output, "s", IMAGE, layouts)
    assert merged.shape == (2, 7, 12, 20)
    assert merged.mean((0, 2, 3)).tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_an_output_that_depends_on_the_data_is_told():
    with pytest.raises(NetworkError, match="more tensors in the dry run than now"):
        merge_maps([torch.zeros(1, 2, 3, 5)], "s", IMAGE, [Layout(index=1)])


def test_mask_classifiers_give_the_logarithm_of_their_semantic_map():
    class Masks:
        class_queries_logits = torch.tensor([[[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]]])  # two queries, two classes, no object
        masks_queries_logits = torch.tensor([[[[8.0, -8.0]], [[-8.0, 8.0]]]])  # one row, two columns

    logits = final_logits(Masks())
    with torch.autocast("cpu"):
        assert torch.equal(final_logits(Masks()), logits)
    assert logits.shape == (1, 2, 1, 2)
    assert logits.argmax(1).tolist() == [[[0, 1]]]
    chance = torch.tensor([5.0, 0.0, 0.0]).softmax(0)
    masks = torch.tensor([8.0, -8.0]).sigmoid()
    expected = chance[0] * masks[0] + chance[1] * masks[1]  # of class 0, left: query 0 and a little of query 1
    torch.testing.assert_close(logits[0, 0, 0, 0].exp(), expected)
