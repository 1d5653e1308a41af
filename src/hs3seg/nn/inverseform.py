"""InverseForm's boundary term (Borse et al., CVPR 2021): how far predicted boundaries lie from the true ones.

A small network looks at a tile of two boundary maps and says by which transformation they differ; the loss is the size
of that answer. A pixelwise loss charges a boundary three pixels away as much as one thirty pixels away; this does not.

From the paper: the network is trained first, alone, on boundary maps and transformed copies; then it is frozen. Maps
are cut into tiles. The distance is Euclidean, to the identity; the other one, geodesic on homographies, was hard to
train with for the authors, too, and is not here.
From the released code (github.com/Qualcomm-AI-research/InverseForm) and its issues 1 and 9: a perceptron of 2 x 224^2
-> 1000 -> 32 -> 4 with ReLU, named `fc.0`, `fc.2`, `fc.4`; the 4 outputs are shifts and scales, normalised so that the
identity is zero; maps are resized to 672 x 1344, 3 x 6 tiles; the loss is the mean over the tiles of the outputs'
Euclidean norm, with weight 0.3 beside the others. The code that trained it is not public (issue 7). The released term
has no gradient: it takes a log-softmax over the one channel of an edge head, which is zero everywhere.
Ours: boundaries come from the class scores, without an edge head (`boundary_map`); tiles without a true boundary do not
count; the training draws its transformations uniformly, where the paper has them from a spatial transformer.

Shapes: N batch, k groups, H x W the labels' size, h x w the logits', T tiles of t x t pixels.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hs3seg.errors import CheckpointError, ConfigError, DataError, reason_of
from hs3seg.files import UNREADABLE
from hs3seg.nn.resize import resize

# Which entries of the 2 x 3 affine matrix [a b shift_x; c d shift_y] the outputs are, by how many there are.
_ENTRIES = {2: (2, 5), 4: (0, 2, 4, 5), 6: (0, 1, 2, 3, 4, 5)}
_SHIFTS = (2, 5)
_LAYERS = ("fc.0", "fc.2", "fc.4")
_SOURCE = (
    "give distance_measures_regressor.pth of release v1.0 of github.com/Qualcomm-AI-research/InverseForm, or the state"
    " dict of an InverseNet"
)


class InverseNet(nn.Module):
    """Two boundary maps in, the transformation between them out, under the released code's names.

    Args:
        tile: Side t of the maps, in pixels.
        parameters: Outputs: 2 (shifts), 4 (and scales), 6 (all of an affine matrix); the identity is zero.
        hidden: Sizes of both hidden layers.
    """

    def __init__(self, tile: int = 224, parameters: int = 4, hidden: tuple[int, int] = (1000, 32)) -> None:
        super().__init__()
        if tile < 2 or parameters not in _ENTRIES or min(hidden) < 1:
            raise ConfigError(
                f"an InverseNet with tile = {tile}, parameters = {parameters}, hidden = {hidden}; a tile has at least 2"
                " pixels a side, parameters are 2, 4 or 6, hidden layers have at least 1 value"
            )
        self.tile = tile
        self.fc = nn.Sequential(
            nn.Linear(2 * tile * tile, hidden[0]),
            nn.ReLU(),
            nn.Linear(hidden[0], hidden[1]),
            nn.ReLU(),
            nn.Linear(hidden[1], parameters),
        )

    def forward(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Normalised deviation from the identity (T, parameters) of maps (T, t, t) with values 0..1."""
        deviation: Tensor = self.fc(torch.cat([predicted.flatten(1), true.flatten(1)], dim=1))
        return deviation


class InverseFormLoss(nn.Module):
    """Mean size of the transformation that the network sees between predicted and true boundaries.

    An extra term: it says nothing about classes, so add it to a per-pixel loss (0.3 in the released code).

    Args:
        net: Trained; it is frozen, and gradients go through it to the logits.
        tiles: Down and across; boundary maps are resized to so many tiles of the network's. Pixels stay square where
            images have this aspect: 3 x 6 is Cityscapes'.
        radius: Half width of a boundary, in pixels of the labels; the released labels have 2.
        ignore_index: Label that does not count; labels from k on do not count either.
        align_corners: How logits are enlarged, as in `F.interpolate`.
    """

    def __init__(
        self,
        net: InverseNet,
        tiles: tuple[int, int] = (3, 6),
        radius: int = 2,
        ignore_index: int = 255,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if min(tiles) < 1 or radius < 1:
            raise ConfigError(
                f"an InverseForm loss with tiles = {tiles}, radius = {radius}; all are at least 1, the released code"
                " has tiles = (3, 6), radius = 2"
            )
        self.net = net.requires_grad_(False)
        self.tiles, self.radius, self.ignore_index = tiles, radius, ignore_index
        self.align_corners = align_corners

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the tiles that have a true boundary.

        Args:
            logits: (N, k, h, w).
            labels: (N, H, W) int64.

        Returns:
            Scalar; a batch without a true boundary, e.g. without a labelled pixel, gives a zero that has a gradient.
        """
        with torch.autocast(logits.device.type, enabled=False):
            groups = logits.shape[1]
            valid = (labels != self.ignore_index) & (labels >= 0) & (labels < groups)
            # Both maps are left out wherever an ignored pixel is within reach.
            known = _window_max((~valid).float()[:, None], self.radius)[:, 0] == 0  # (N, H, W)
            size = (labels.shape[-2], labels.shape[-1])
            shares = F.softmax(resize(logits.float(), size, self.align_corners), dim=1)  # (N, k, H, W)
            predicted = self._tiles(boundary_map(shares, self.radius) * known)  # (T, t, t)
            true = self._tiles(label_boundaries(labels, self.radius) * known)
            counts = (true.flatten(1).amax(1) > 0).float()  # (T,)
            sizes: Tensor = torch.linalg.vector_norm(self.net(predicted, true), dim=1)  # (T,)
            return (sizes * counts).sum() / counts.sum().clamp(min=1)

    def _tiles(self, maps: Tensor) -> Tensor:
        """Boundary maps (N, H, W), resized and cut: (N * tiles, t, t)."""
        (down, across), side = self.tiles, self.net.tile
        maps = resize(maps[:, None], (down * side, across * side))
        return maps.view(-1, down, side, across, side).transpose(2, 3).reshape(-1, side, side)


def boundary_map(shares: Tensor, radius: int) -> Tensor:
    """Where the group changes: the largest change of any group's probability within a window, 0..1.

    One where one-hot maps change and zero where they do not, and differentiable between.

    Args:
        shares: (N, k, H, W), probabilities.
        radius: Half the window's side, in pixels.

    Returns:
        (N, H, W).
    """
    return (_window_max(shares, radius) + _window_max(-shares, radius)).amax(1)


def label_boundaries(labels: Tensor, radius: int) -> Tensor:
    """`boundary_map` of labels (N, H, W), whose one-hot maps are not made: (N, H, W) of zeros and ones.

    The ignore label counts as a group of its own.
    """
    ids = labels[:, None].float()
    return (_window_max(ids, radius) > -_window_max(-ids, radius))[:, 0].float()


def load_inverse_net(path: Path) -> InverseNet:
    """The public network, or one of ours, from a file; sizes are read off the weights.

    Args:
        path: `distance_measures_regressor.pth`, or `torch.save` of an `InverseNet`'s state dict.

    Raises:
        CheckpointError: missing, not to be trusted, incomplete, or of another network.
    """
    if not path.is_file():
        raise CheckpointError(f"InverseForm weights '{path}' do not exist; {_SOURCE}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = reason_of(error)
        raise CheckpointError(f"{path}: not a weight file that can be trusted ({reason}); {_SOURCE}") from None
    tensors = _unwrap(content)
    wanted = [f"{layer}.{kind}" for layer in _LAYERS for kind in ("weight", "bias")]
    missing = [name for name in wanted if name not in tensors]
    unknown = [name for name in tensors if name not in wanted]
    if missing or unknown:
        raise CheckpointError(
            f"{path}: not InverseForm's network: {len(missing)} of {len(wanted)} tensors missing,"
            f" {len(unknown)} unknown, e.g. '{(missing + unknown)[0]}'; {_SOURCE}"
        )
    shapes = {name: tuple(tensors[name].shape) for name in wanted}
    inputs = shapes["fc.0.weight"][-1] if shapes["fc.0.weight"] else 0
    widths = [shapes[f"{layer}.bias"][0] if shapes[f"{layer}.bias"] else 0 for layer in _LAYERS]
    tile = math.isqrt(inputs // 2)
    expected: dict[str, tuple[int, ...]] = {}
    for layer, before, after in zip(_LAYERS, [2 * tile * tile, *widths], widths, strict=False):
        expected |= {f"{layer}.weight": (after, before), f"{layer}.bias": (after,)}
    wrong = [name for name in wanted if shapes[name] != expected[name]]
    if wrong or widths[2] not in _ENTRIES:
        name = wrong[0] if wrong else "fc.4.bias"
        raise CheckpointError(
            f"{path}: '{name}' is {shapes[name]}; InverseForm's network has 2 t^2 inputs and 2, 4 or 6 outputs, the"
            f" public one (1000, 100352), (32, 1000), (4, 32) weights; {_SOURCE}"
        )
    with torch.device("meta"):
        net = InverseNet(tile, widths[2], (widths[0], widths[1]))
    net.load_state_dict({name: tensors[name].float() for name in wanted}, assign=True)
    return net


def train_inverse_net(
    edge_maps: Tensor,
    steps: int,
    seed: int,
    *,
    tile: int = 224,
    parameters: int = 4,
    hidden: tuple[int, int] = (1000, 32),
    max_shift: float = 0.25,
    max_stretch: float = 0.25,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
) -> tuple[InverseNet, list[float]]:
    """Learns the transformation between a tile of a boundary map and its transformed copy; nothing is labelled by hand.

    Tiles are cut where there are boundaries. Each parameter is drawn uniformly; what the network is to say is the
    deviation from the identity divided by its largest value, so that no parameter outweighs the others.

    Args:
        edge_maps: (M, H, W), values 0..1, e.g. `label_boundaries` of the training labels, in the resolution of the
            loss's tiles. Training runs on their device.
        steps: Of Adam.
        seed: Of the initial weights and of all draws.
        tile: Side of a tile, in pixels.
        parameters: See `InverseNet`.
        hidden: See `InverseNet`.
        max_shift: Largest shift, in halves of a tile.
        max_stretch: Largest deviation of the other entries of the matrix.
        batch_size: Tiles a step.
        learning_rate: Of Adam.

    Returns:
        The network, and each step's mean squared error; 1/3 is that of always answering "the identity".

    Raises:
        ConfigError: no steps or tiles, or ranges outside (0, 1).
        DataError: not (M, H, W), or no map has a boundary.
    """
    if min(steps, batch_size) < 1 or not (0 < max_shift < 1 and 0 < max_stretch < 1):
        raise ConfigError(
            f"steps = {steps}, batch_size = {batch_size}, max_shift = {max_shift}, max_stretch = {max_stretch}; the"
            " first two are at least 1, the others between 0 and 1, e.g. 0.25"
        )
    if edge_maps.ndim != 3:
        raise DataError(f"edge maps of shape {tuple(edge_maps.shape)}; give (maps, height, width)")
    places = (edge_maps > 0.5).nonzero().cpu()  # (edge pixels, 3)
    if not len(places):
        raise DataError(
            f"none of {len(edge_maps)} edge maps has a boundary (a value above 0.5); give maps that have some"
        )
    generator = torch.Generator().manual_seed(seed)
    device = edge_maps.device
    net = _initial(tile, parameters, hidden, generator).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
    entries = torch.tensor(_ENTRIES[parameters])
    largest = torch.tensor([max_shift if entry in _SHIFTS else max_stretch for entry in entries.tolist()])
    identity = torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(batch_size, 1)
    losses = []
    for _ in range(steps):
        maps, rows, columns = places[torch.randint(len(places), (batch_size,), generator=generator)].unbind(1)
        jitter = (torch.rand(batch_size, 2, generator=generator) - 0.5) * (tile / 2)
        centres = torch.stack([columns, rows], 1) + jitter  # (T, 2): x, y in pixels
        target = 2 * torch.rand(batch_size, parameters, generator=generator) - 1  # (T, parameters)
        matrices = identity.index_add(1, entries, target * largest)  # (T, 6)
        chosen = edge_maps[maps.to(device)].float()  # (T, H, W)
        true = cut_tiles(chosen, centres.to(device), identity.to(device), tile)
        copy = cut_tiles(chosen, centres.to(device), matrices.to(device), tile)
        loss = F.mse_loss(net(copy, true), target.to(device))
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return net, torch.stack(losses).tolist()


def cut_tiles(maps: Tensor, centres: Tensor, matrices: Tensor, tile: int) -> Tensor:
    """A tile of each map, seen through an affine matrix; what is outside the map is zero.

    Args:
        maps: (T, H, W).
        centres: (T, 2): x and y of the tile's middle, in pixels.
        matrices: (T, 6): rows of [a b shift_x; c d shift_y], where 1 is half a tile, as in `F.affine_grid`.
        tile: Side t, in pixels.

    Returns:
        (T, t, t).
    """
    count, height, width = maps.shape
    grid = F.affine_grid(matrices.view(count, 2, 3), [count, 1, tile, tile], align_corners=False)  # (T, t, t, 2)
    size = torch.tensor([width, height], device=maps.device)
    grid = (grid * tile + 2 * centres[:, None, None] + 1) / size - 1
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0]


def _window_max(maps: Tensor, radius: int) -> Tensor:
    """Largest value within a square window of each pixel, maps (N, C, H, W)."""
    side = 2 * radius + 1
    return F.max_pool2d(F.max_pool2d(maps, (side, 1), 1, (radius, 0)), (1, side), 1, (0, radius))


def _initial(tile: int, parameters: int, hidden: tuple[int, int], generator: torch.Generator) -> InverseNet:
    """The initial weights that torch gives linear layers, drawn from a generator of our own."""
    with torch.device("meta"):
        net = InverseNet(tile, parameters, hidden)
    net.to_empty(device="cpu")
    for layer in net.fc:
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator)
    return net


def _unwrap(content: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without what DataParallel and saving put around them."""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "model.", "modules."):
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
