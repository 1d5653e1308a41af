import copy
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hs3seg import networks
from hs3seg.analysis import StagePlan, SupervisionPlan, deep_supervision
from hs3seg.errors import NetworkError, PlanError
from hs3seg.nn import HierarchicalLoss, Supervised, count_cost, final_logits, find_stages, merge_maps, supervise
from hs3seg.nn.maps import Layout
from hs3seg.taxonomy import Grouping

EXAMPLE = torch.zeros(1, 3, 64, 96)


class Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """A user's plain CNN, with a functional skip and a module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2, self.enc3, self.enc4 = Block(3, 8), Block(8, 16), Block(16, 32), Block(32, 32)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2)
        self.unused = nn.Conv2d(3, 3, 1)
        self.dec = Block(48, 16)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.enc1(x)
        x = skip = self.enc2(self.pool(x))
        x = self.enc4(self.pool(self.enc3(self.pool(x))))
        x = self.dec(torch.cat([self.up(self.up(x)), skip], 1))
        return {"out": self.head(self.up(x)), "aux": x}


class Residual(nn.Module):
    """A classifier-like trunk whose stages change scale inside their first block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Block(3, 8, 2)
        self.layer1 = nn.Sequential(Block(8, 8, 2), Block(8, 8))
        self.layer2 = nn.Sequential(Block(8, 16, 2), Block(16, 16))
        self.layer3 = nn.Sequential(Block(16, 32, 2), Block(32, 32))
        self.layer4 = nn.Sequential(Block(32, 32, 2), Block(32, 32))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 32, 1), nn.Sigmoid())
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.head(x * self.gate(x))


NETS = {
    "hrnet": (lambda: networks.create("hrnet_w18_small", 5), ("stage2", "stage3")),
    "unet": (UNet, ("enc2", "enc3")),
    "residual": (Residual, ("layer2", "layer3")),
}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return NETS[request.param][0]()


@pytest.mark.parametrize("name", NETS)
def test_auto_finds_the_scale_transitions(name: str) -> None:
    make, stages = NETS[name]
    assert find_stages(make(), EXAMPLE) == stages


def test_the_dry_run_changes_nothing(net: nn.Module) -> None:
    net.train()
    next(net.children()).eval()
    before = copy.deepcopy(net.state_dict())
    modes = [m.training for m in net.modules()]
    find_stages(net, EXAMPLE)
    find_stages(net, EXAMPLE, 2)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
    assert modes == [m.training for m in net.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_stages_by_depth_are_whole_blocks_in_order(net: nn.Module) -> None:
    for number in (1, 2, 3):
        names = find_stages(net, EXAMPLE, number)
        assert len(set(names)) == number
        assert find_stages(net, EXAMPLE, names) == names


def test_named_stages_are_sorted_shallow_to_deep() -> None:
    assert find_stages(UNet(), EXAMPLE, ["dec", "enc1"]) == ("enc1", "dec")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (["enc9"], "'enc9' is not in the net; modules that begin with 'enc': enc1, enc2, enc3, enc4"),
        (["unused"], "'unused' never runs"),
        (["pool"], "'pool' runs 3 times"),
        (0, "at least 1"),
        (99, "can be tapped|too many"),
        ("everything", "give 'auto'"),
    ],
)
def test_wrong_stages(stages: object, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        find_stages(UNet(), EXAMPLE, stages)


def test_a_stage_without_a_map() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(2), nn.Unflatten(2, (64, 96)))
    with pytest.raises(NetworkError, match="'1' gives no spatial map"):
        find_stages(net, EXAMPLE, ["1"])
    with pytest.raises(NetworkError, match="only 0 places"):
        find_stages(net, EXAMPLE)


def test_outputs_are_stages_then_final(net: nn.Module) -> None:
    model = supervise(net, num_classes=5, example=EXAMPLE)
    outputs = model(torch.randn(2, 3, 64, 96))
    assert list(outputs) == [*model.stages, "final"]
    assert all(value.shape[:2] == (2, 5) for value in outputs.values())
    assert not model._caught


def test_strip_gives_back_the_very_network(net: nn.Module) -> None:
    net.eval()
    images = torch.randn(1, 3, 64, 96)
    plain, keys = final_logits(net(images)), list(net.state_dict())
    model = supervise(net, num_classes=5, example=EXAMPLE).eval()
    with torch.no_grad():
        assert torch.equal(model(images)["final"], plain)
    stripped = model.strip()
    assert stripped is net
    assert list(stripped.state_dict()) == keys
    assert torch.equal(final_logits(stripped(images)), plain)
    assert not any(m._forward_hooks for m in stripped.modules())


def test_a_training_step_reaches_every_parameter_that_runs() -> None:
    model = supervise(networks.create("hrnet_w18_small", 5), num_classes=5, example=EXAMPLE)
    HierarchicalLoss(model.plan)(model(torch.randn(2, 3, 64, 96)), torch.randint(0, 5, (2, 64, 96))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("optimized", ["network", "model", "heads", "frozen heads", "nothing"])
def test_heads_that_no_optimizer_has_are_pointed_out(optimized: str) -> None:
    net = UNet()
    model = supervise(net, example=EXAMPLE).train()
    if optimized == "frozen heads":
        model.heads.requires_grad_(False)
    part = {"model": model, "heads": model.heads}.get(optimized, net)
    optimizer = torch.optim.SGD(part.parameters(), lr=0.0 if optimized == "nothing" else 0.1)
    loss, labels = HierarchicalLoss(model.plan), torch.zeros(2, 64, 96, dtype=torch.int64)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(4):
            loss(model(torch.rand(2, 3, 64, 96)), labels).backward()
            if optimized != "nothing":
                optimizer.step()
    messages = [str(one.message) for one in found if "its stages' heads" in str(one.message)]
    assert len(messages) == (optimized == "network")
    if messages:
        assert found[-1].filename == __file__


def test_batch_norm_over_processes_gives_the_same_as_the_plain_one() -> None:
    torch.manual_seed(0)
    plain = supervise(UNet(), example=EXAMPLE).train()
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain))
    images, labels = torch.rand(2, 3, 64, 96), torch.randint(0, 5, (2, 64, 96))
    for model in (plain, synced):
        HierarchicalLoss(model.plan)(model(images), labels).backward()
    assert any(isinstance(module, nn.SyncBatchNorm) for module in synced.heads.modules())
    own = dict(synced.named_parameters())
    for name, parameter in plain.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(own[name].grad, parameter.grad)
    for name, value in plain.named_buffers():
        torch.testing.assert_close(dict(synced.named_buffers())[name], value)  # counted once, although run twice


@pytest.mark.parametrize("part", ["whole", "encoder", "before"])
def test_a_compiled_network_trains(part: str) -> None:
    def made() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Sequential(Block(3, 8, 2), Block(8, 8, 2)), nn.Conv2d(8, 5, 1))

    images, labels = torch.rand(2, 3, 32, 32), torch.randint(0, 5, (2, 32, 32))
    found = []
    for compiled in (False, True):
        net = made()
        stage = "0.0"
        if compiled and part == "before":
            net, stage = torch.compile(net, backend="eager"), "_orig_mod.0.0"
        torch.manual_seed(1)
        model = supervise(net, [stage], example=torch.zeros(1, 3, 32, 32)).train()
        if compiled and part != "before":
            (net if part == "whole" else net[0]).compile(backend="eager")
        loss = HierarchicalLoss(model.plan)
        for _ in range(2):
            loss(model(images), labels).backward()
        found.append([parameter.grad for parameter in model.parameters()])
    torch._dynamo.reset()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_data_parallel_says_what_to_do() -> None:
    model = supervise(UNet(), example=EXAMPLE)
    replica = model._replicate_for_data_parallel()
    replica._is_replica = True
    with pytest.raises(NetworkError, match=r"nn.DataParallel copies .* torchrun or accelerate launch"):
        replica(EXAMPLE)


def test_checkpointing_is_passed_on() -> None:
    net = UNet()
    with pytest.raises(NetworkError, match=r"UNet has no gradient_checkpointing_enable"):
        supervise(net, example=EXAMPLE).gradient_checkpointing_enable()
    asked = []
    net.gradient_checkpointing_enable = lambda **options: asked.append(options)
    supervise(net, example=EXAMPLE).gradient_checkpointing_enable(gradient_checkpointing_kwargs=None)
    assert asked == [{"gradient_checkpointing_kwargs": None}]


def test_copies_and_pickles_work_on_their_own(net: nn.Module) -> None:
    model = supervise(net, num_classes=5, example=EXAMPLE).eval()
    images = torch.randn(1, 3, 64, 96)
    expected = model(images)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            for p in model.net.parameters():
                p.add_(1.0)  # the copy must not look at the original
            found = other(images)
            for p in model.net.parameters():
                p.sub_(1.0)
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert other.strip() is other.net


def test_state_dict_names_and_round_trip() -> None:
    model = supervise(Residual(), ["layer1.0", "layer3"], num_classes=5, example=EXAMPLE)
    names = list(model.state_dict())
    assert all(name.startswith(("net.", "heads.layer1/0.", "heads.layer3.")) for name in names)
    other = supervise(Residual(), ["layer1.0", "layer3"], num_classes=5, example=EXAMPLE)
    other.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(other.eval()(images)["layer1.0"], model.eval()(images)["layer1.0"])


def test_groups_size_the_heads_and_a_plan_must_be_in_order() -> None:
    names = ("a", "b", "c", "d", "e")
    coarse = StagePlan("layer1", Grouping.from_labels([0, 0, 1, 1, 1]))
    fine = StagePlan("layer3", Grouping.identity(5))
    outputs = supervise(Residual(), plan=SupervisionPlan(names, (coarse, fine)), example=EXAMPLE)(
        EXAMPLE.repeat(2, 1, 1, 1)
    )
    assert {name: value.shape[1] for name, value in outputs.items()} == {"layer1": 2, "layer3": 5, "final": 5}
    with pytest.raises(NetworkError, match="order layer1, layer3"):
        supervise(Residual(), plan=SupervisionPlan(names, (fine, coarse)), example=EXAMPLE)


def test_no_stages_is_the_plain_network() -> None:
    net = UNet()
    model = supervise(net, plan=SupervisionPlan(tuple("abcde"), ()), example=EXAMPLE)
    assert list(model(EXAMPLE)) == ["final"]
    assert count_cost(model, (1, 3, 64, 96)) == count_cost(net, (1, 3, 64, 96))


def test_unknown_outputs_and_a_plan_for_other_classes() -> None:
    with pytest.raises(NetworkError, match="no logits"):
        final_logits({"mask": torch.zeros(1)})
    with pytest.raises(NetworkError, match="no logits"):
        supervise(nn.Flatten(), example=EXAMPLE)
    plan = SupervisionPlan(tuple("abc"), (StagePlan("layer2", Grouping.identity(3)),))
    with pytest.raises(NetworkError, match="logits have 5 classes, the plan has 3"):
        supervise(Residual(), plan=plan, example=EXAMPLE)


def test_the_number_of_classes_is_read_off_the_logits() -> None:
    assert supervise(UNet(), example=EXAMPLE).plan.num_classes == 5


def test_autocast_and_channels_last_change_little() -> None:
    torch.manual_seed(0)
    model = supervise(networks.create("hrnet_w18_small", 5), num_classes=5, example=EXAMPLE).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        plain = model(images)
        model.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(images.to(memory_format=torch.channels_last))
    for name, value in plain.items():
        assert (half[name].float() - value).abs().max() < 0.1 * value.abs().max() + 0.05, name


def test_compiled_in_one_graph_and_exported() -> None:
    model: Supervised = supervise(Residual(), num_classes=5, example=EXAMPLE).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(images)
        compiled = torch.compile(model, fullgraph=True, backend="eager")(images)
        exported = torch.export.export(model, (images,)).module()(images)
    for name, value in expected.items():
        assert torch.equal(compiled[name], value)
        assert torch.equal(exported[name], value)


def test_stripping_a_copy_leaves_the_original_supervised() -> None:
    model = supervise(Residual(), num_classes=5, example=EXAMPLE).eval()
    other = copy.deepcopy(model)
    assert not any(m._forward_hooks for m in other.strip().modules())
    assert list(model(EXAMPLE)) == [*model.stages, "final"]


def test_a_stripped_model_says_so() -> None:
    model = supervise(Residual(), num_classes=5, example=EXAMPLE).eval()
    model.strip()
    with pytest.raises(NetworkError, match=r"'layer2' was not caught: after strip\(\)"):
        model(EXAMPLE)


def test_heads_have_the_networks_precision_and_device() -> None:
    model = supervise(Residual().double(), num_classes=5, example=EXAMPLE)
    assert {value.dtype for value in model(EXAMPLE.double().repeat(2, 1, 1, 1)).values()} == {torch.float64}
    empty = supervise(Residual().to("meta"), num_classes=5, example=EXAMPLE)
    assert {p.device.type for p in empty.parameters()} == {"meta"}


@pytest.mark.parametrize("coarse", [None, [0, 0, 1, 1, 1]])
def test_data_parallel_training_has_no_unused_parameter(coarse: list[int] | None, tmp_path: Path) -> None:
    """DDP raises in the second step if a parameter got no gradient in the first."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        plan = SupervisionPlan(tuple("abcde"), ())
        if coarse is not None:
            plan = SupervisionPlan(tuple("abcde"), (StagePlan("layer2", Grouping.from_labels(coarse)),))
        model = supervise(Residual(), plan=plan, example=EXAMPLE)
        parallel = nn.parallel.DistributedDataParallel(model)
        loss = HierarchicalLoss(plan)
        for _ in range(2):
            loss(parallel(torch.randn(2, 3, 64, 96)), torch.randint(0, 5, (2, 64, 96))).backward()
        assert all(p.grad is not None for p in model.parameters())
    finally:
        torch.distributed.destroy_process_group()


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    nested=st.booleans(),
)
def test_merged_maps_keep_every_channel_at_the_largest_size(sizes: list[tuple[int, int, int]], nested: bool) -> None:
    maps = [torch.full((2, c, h, w), float(i)) for i, (c, h, w) in enumerate(sizes)]
    layouts = [Layout(index=i) for i in range(len(maps))]
    merged = merge_maps((maps[:1], maps[1:]) if nested and len(maps) > 1 else maps, "s", (9, 9), layouts)
    largest = max(((h, w) for _, h, w in sizes), key=lambda s: s[0] * s[1])
    assert merged.shape == (2, sum(c for c, _, _ in sizes), *largest)
    expected = [float(i) for i, (c, _, _) in enumerate(sizes) for _ in range(c)]
    torch.testing.assert_close(merged.mean((0, 2, 3)), torch.tensor(expected))


class ViT(nn.Module):
    """Tokens of one scale, with a class token, and channels-last maps from a neck."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 24, 8, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 24)) for _ in range(6))
        self.neck = nn.Linear(24, 12)
        self.head = nn.Conv2d(12, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = self.embed(x)
        tokens = torch.cat([grid.new_zeros(len(x), 1, 24), grid.flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            tokens = tokens + block(tokens)
        maps = self.neck(tokens[:, 1:].reshape(len(x), *grid.shape[-2:], 24))
        return self.head(maps.permute(0, 3, 1, 2))


def test_tokens_and_channels_last_maps_are_supervised_at_any_size() -> None:
    model = supervise(ViT(), ["blocks.2", "neck"], example=EXAMPLE)
    shapes = {name: tuple(value.shape) for name, value in model(torch.randn(2, 3, 48, 80)).items()}
    assert shapes == {"blocks.2": (2, 5, 6, 10), "neck": (2, 5, 6, 10), "final": (2, 5, 6, 10)}
    assert model.heads["blocks/2"][0].in_channels == 24


class Cube(nn.Module):
    """As many channels as a square example has rows of its only map, which holds them last."""

    def __init__(self, one_size: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Conv2d(16, 5, 1)
        self.one_size = one_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.one_size and x.shape[-1] != 64:
            raise AssertionError("positions of 16x16 patches")
        return self.head(self.mix(self.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def test_a_second_look_tells_where_the_channels_of_a_cube_are() -> None:
    example = torch.zeros(1, 3, 64, 64)
    shapes = {}
    for one_size in (False, True):
        model = supervise(Cube(one_size), ["stem", "mix"], example=example)
        assert model.training
        layouts = {stage: layout[0].kind for stage, layout in model._layouts.items()}
        # A network of one size cannot be asked.
        assert layouts == {"stem": "first", "mix": "first" if one_size else "last"}
        shapes[one_size] = tuple(model.eval()(example)["mix"].shape)
    assert shapes[False] == shapes[True] == (1, 5, 16, 16)


def test_a_pass_that_fails_leaves_nothing_behind() -> None:
    class Failing(Residual):
        fails = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.fails:
                self.layer2(self.layer1(self.stem(x)))
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    net = Failing()
    model = supervise(net, example=EXAMPLE).train()
    net.fails = True
    with pytest.raises(torch.OutOfMemoryError):
        model(torch.randn(2, 3, 64, 96))
    net.fails = False
    net(torch.randn(2, 3, 64, 96))
    assert not model._caught
    copy.deepcopy(model)
    copy.deepcopy(net)


def test_two_passes_of_different_sizes_before_one_backward_pass() -> None:
    torch.manual_seed(0)
    model = supervise(ViT(), ["blocks.2"], example=EXAMPLE).train()
    sizes = ((48, 80), (64, 96))
    batches = [torch.randn(2, 3, *size) for size in sizes]
    total = sum(model(images)["blocks.2"].square().mean() for images in batches)
    assert isinstance(total, torch.Tensor)
    total.backward()
    assert model.heads["blocks/2"][0].weight.grad.abs().sum() > 0


def test_one_scale_throughout_gives_stages_by_depth() -> None:
    assert find_stages(ViT(), EXAMPLE) == ("blocks.1", "blocks.3")


def test_patterns_and_indices_name_stages() -> None:
    net = Residual()
    assert find_stages(net, EXAMPLE, ["layer[23]"]) == ("layer2", "layer3")
    assert find_stages(net, EXAMPLE, [-1]) == ("layer3",)
    assert find_stages(net, EXAMPLE, [0, "layer3"]) == ("stem", "layer3")
    with pytest.raises(NetworkError, match=r"stage 9: the network has 4 scale transitions \(stem, layer1, layer2, lay"):
        find_stages(net, EXAMPLE, [9])


@pytest.mark.parametrize("stage", ["head"])
def test_a_stage_that_gives_the_logits_is_refused(stage: str) -> None:
    with pytest.raises(NetworkError, match=f"'{stage}' comes after the final logits, or gives them"):
        supervise(Residual(), [stage], example=EXAMPLE)


def test_pooling_that_gives_its_scale_back_is_no_transition() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reduce = nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Conv2d(32, 32, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + nn.functional.interpolate(self.reduce(x), size=x.shape[-2:])

    net = Residual()
    net.layer4.append(Pyramid())
    assert find_stages(net, EXAMPLE) == ("layer2", "layer3")


class Checkpointed(Residual):
    reentrant = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer1(self.stem(x))
        for layer in (self.layer2, self.layer3):
            x = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=self.reentrant)
        x = self.layer4(x)
        return self.head(x * self.gate(x))


def test_activation_checkpointing_inside_a_stage_changes_no_gradient() -> None:
    def gradients(kind: type[Residual]) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = supervise(kind(), ["layer2.1", "layer3.1"], example=EXAMPLE).train()
        images = torch.linspace(0, 1, 2 * 3 * 64 * 96).reshape(2, 3, 64, 96)
        for _ in range(2):  # the second step would meet what the first one's backward pass caught
            model.zero_grad()
            torch.stack([value.square().mean() for value in model(images).values()]).sum().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    expected, found = gradients(Residual), gradients(Checkpointed)
    assert set(found) == set(expected)
    assert "heads.layer2/1.0.weight" in found
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_a_stage_without_gradients_is_pointed_out_once() -> None:
    net = Checkpointed()
    net.reentrant = True
    model = supervise(net, ["layer2", "layer3.1"], example=EXAMPLE).train()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(2):
            torch.stack([value.mean() for value in model(torch.randn(2, 3, 64, 96)).values()]).sum().backward()
    messages = [str(one.message) for one in found if "without gradients" in str(one.message)]
    assert len(messages) == 1
    assert messages[0].startswith("stage 'layer2' runs")
    assert "use_reentrant=False" in messages[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "None of the inputs")  # torch's own, of such checkpoints
        model.eval()(EXAMPLE)
        with torch.no_grad():
            model.train()(EXAMPLE.repeat(2, 1, 1, 1))


def test_weights_loaded_between_the_first_passes_are_no_optimizer() -> None:
    model = supervise(UNet(), example=EXAMPLE).train()
    loss, labels = HierarchicalLoss(model.plan), torch.zeros(2, 64, 96, dtype=torch.int64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(torch.rand(2, 3, 64, 96))
        model.net.load_state_dict(UNet().state_dict())
        for _ in range(3):
            loss(model(torch.rand(2, 3, 64, 96)), labels).backward()
            optimizer.step()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [(32, 32), (48, 96), (96, 48), (128, 128)])
def test_a_small_example_finds_the_same_stages(name: str, size: tuple[int, int]) -> None:
    """At 32 pixels a map of stride 32 is (1, 1), as that of global pooling."""
    make, stages = NETS[name]
    example = torch.zeros(1, 3, *size)
    assert find_stages(make(), example) == stages
    assert find_stages(make(), example, [-1]) == stages[-1:]
    model = supervise(make(), example=example)
    assert model.stages == stages
    shapes = [tuple(value.shape[:2]) for value in model(torch.randn(2, 3, *size)).values()]
    assert shapes == [(2, 5)] * 3


def test_a_network_of_one_size_is_examined_at_that() -> None:
    class Fixed(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[-2:] != (64, 96):
                raise KeyError("no position of that size")
            return super().forward(x)

    assert find_stages(Fixed(), EXAMPLE) == ("layer2", "layer3")
    assert supervise(Fixed(), example=EXAMPLE).stages == ("layer2", "layer3")


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(1, 3, 64, 96).numpy(), r"the example is of type ndarray; give a tensor of images \(N, C, H, W\)"),
        (
            [torch.zeros(1, 3, 64, 96), torch.zeros(1, 64, 96)],
            r"the example is of type list; .* of a batch .* the first",
        ),
        (torch.zeros(3, 64, 96), r"the example has shape \(3, 64, 96\); give images \(N, C, H, W\)"),
        (torch.zeros(0, 3, 64, 96), r"the example has shape \(0, 3, 64, 96\); .* one at least"),
    ],
)
def test_an_example_that_is_no_batch_of_images(example: object, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        supervise(UNet(), example=example)
    with pytest.raises(NetworkError, match=message):
        find_stages(UNet(), example)


@pytest.mark.parametrize("options", [{}, {"num_classes": 1}, {"num_classes": 2}, {"plan": True}])
def test_a_network_with_one_logit_is_told_to_have_two(options: dict[str, object]) -> None:
    net = Residual()
    net.head = nn.Conv2d(32, 1, 1)
    if options.get("plan"):
        options = {"plan": deep_supervision(("background", "foreground"), ["layer2"])}
    with pytest.raises(NetworkError, match=r"the network has one logit \(a sigmoid\); make it with two classes"):
        supervise(net, example=EXAMPLE, **options)
    assert not any(module._forward_hooks for module in net.modules())


def test_a_number_of_classes_below_two_is_refused() -> None:
    with pytest.raises(NetworkError, match="num_classes = 1, and the network's logits have 5 classes; leave it out"):
        supervise(Residual(), num_classes=1, example=EXAMPLE)


def test_a_plan_may_be_a_file(tmp_path: Path) -> None:
    plan = SupervisionPlan(tuple("abcde"), (StagePlan("layer2", Grouping.from_labels([0, 0, 1, 1, 1])),))
    plan.save(tmp_path / "plan.toml")
    for path in (tmp_path / "plan.toml", str(tmp_path / "plan.toml")):
        assert supervise(Residual(), plan=path, example=EXAMPLE).plan == plan
    with pytest.raises(PlanError, match="plan 'no.toml' does not exist"):
        supervise(Residual(), plan="no.toml", example=EXAMPLE)
    with pytest.raises(NetworkError, match="stages = 'plan.toml'; give 'auto', .* and a plan as plan="):
        supervise(Residual(), "plan.toml", example=EXAMPLE)
    with pytest.raises(NetworkError, match="stages is a SupervisionPlan; give 'auto', .* and a plan as plan="):
        supervise(Residual(), plan, example=EXAMPLE)


def test_what_stands_beside_a_plan_may_only_say_the_same() -> None:
    plan = deep_supervision(tuple("abcde"), ["layer2", "layer3"])
    for stages in ("auto", ["layer2", "layer3"], ("layer3", "layer2"), ["layer[23]"], [2, 3]):
        assert supervise(Residual(), stages, plan, num_classes=5, example=EXAMPLE).plan == plan
    with pytest.raises(NetworkError, match="num_classes = 7 beside a plan of 5 classes; leave it out"):
        supervise(Residual(), plan=plan, num_classes=7, example=EXAMPLE)
    with pytest.raises(NetworkError, match="stages are layer1 beside a plan of layer2, layer3; leave them out"):
        supervise(Residual(), ["layer1"], plan, example=EXAMPLE)
    with pytest.raises(NetworkError, match="stages are .* beside a plan of layer2, layer3"):
        supervise(Residual(), 1, plan, example=EXAMPLE)


def test_supervising_again_takes_the_older_models_hooks_off() -> None:
    net = Residual()
    older = supervise(net, ["layer1", "layer2"], example=EXAMPLE).eval()
    own = net.layer1.register_forward_hook(lambda *_: None)
    newer = supervise(net, ["layer2", "layer3"], example=EXAMPLE).eval()
    assert list(newer(EXAMPLE)) == ["layer2", "layer3", "final"]
    with pytest.raises(NetworkError, match="'layer1' was not caught: .* after supervising it again the newer model"):
        older(EXAMPLE)
    assert list(newer(EXAMPLE)) == ["layer2", "layer3", "final"]
    assert own.id in net.layer1._forward_hooks  # somebody else's
    own.remove()
    newer.strip()
    older.strip()
    for plain in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert not any(module._forward_hooks for module in plain.modules())


def test_a_supervision_that_is_refused_leaves_the_older_model_in_order() -> None:
    net = Residual()
    older = supervise(net, ["layer1"], example=EXAMPLE).eval()
    with pytest.raises(NetworkError, match="logits have 5 classes, the plan has 3"):
        supervise(net, ["layer2"], num_classes=3, example=EXAMPLE)
    assert list(older(EXAMPLE)) == ["layer1", "final"]
    assert not any(module._forward_hooks for module in older.strip().modules())


def test_a_supervised_network_inside_another_keeps_its_hooks() -> None:
    class Around(nn.Module):
        def __init__(self, inner: Supervised) -> None:
            super().__init__()
            self.inner, self.last = inner, nn.Conv2d(5, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.inner(x)["final"])

    model = supervise(Around(supervise(Residual(), ["layer2"], example=EXAMPLE)), ["inner.net.layer3"], example=EXAMPLE)
    assert list(model.eval()(EXAMPLE)) == ["inner.net.layer3", "final"]
