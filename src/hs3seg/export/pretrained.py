"""Networks as model.safetensors and config.json, in a folder or on the Hugging Face hub.

Shapes: N images, C channels, H x W the image, K classes, h x w the logits' size.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import torch
from huggingface_hub import ModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hs3seg.errors import CheckpointError, NetworkError, UserError
from hs3seg.files import write_atomically, write_json
from hs3seg.networks import FusedSegmenter, MultiScale, create, fuse
from hs3seg.nn import Supervised
from hs3seg.taxonomy import Taxonomy

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT = "hs3seg-network-1"


@dataclass(frozen=True)
class Recipe:
    """How a network of `hs3seg.networks.create` is built anew.

    Args:
        name: For `create`.
        num_classes: K.
        options: For `create`, e.g. `{"mid": 64}`.
        groups: HS3-Fuse: stage -> number of groups; empty = not fused.
        widths: HS3-Fuse: (mid, key); None = not fused.
    """

    name: str
    num_classes: int
    options: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    widths: tuple[int, int] | None = None

    def build(self) -> nn.Module:
        """The network with new weights.

        Raises:
            NetworkError: unknown name or option, or a stage that the network does not have.
        """
        net = create(self.name, self.num_classes, **self.options)
        if not self.groups:
            return net
        mid, key = self.widths or (None, None)
        return fuse(net, self.groups, mid=mid, key=key)


class PretrainedSegmenter(
    nn.Module, ModelHubMixin, library_name="hs3seg", pipeline_tag="image-segmentation", tags=["semantic-segmentation"]
):
    """A network of ours with `save_pretrained`, `from_pretrained` and `push_to_hub`.

    The weight file has the network's own names, so that `create(...)` and `load_state_dict` take it, too.

    Args:
        net: From `hs3seg.networks.create` or `fuse`.
        name: For `create`.
        options: That it was created with, beside the number of classes.
        taxonomy: Its classes.
    """

    def __init__(
        self,
        net: nn.Module,
        name: str,
        options: Mapping[str, Any] | None = None,
        taxonomy: Taxonomy | None = None,
    ) -> None:
        super().__init__()
        if isinstance(net, Supervised):
            raise NetworkError("the network still has the heads of its stages; give model.strip(), the network alone")
        self.net = net
        self.recipe = recipe_of(net, name, options or {})
        self.taxonomy = taxonomy
        if taxonomy is not None and taxonomy.num_classes != self.recipe.num_classes:
            raise NetworkError(
                f"the network has {self.recipe.num_classes} classes, the taxonomy {taxonomy.num_classes}; give its own"
            )

    @property
    def mean(self) -> tuple[float, ...]:
        """Input mean per channel, 0..1."""
        return tuple(cast("Any", self.net).mean)

    @property
    def std(self) -> tuple[float, ...]:
        """Input standard deviation per channel, 0..1."""
        return tuple(cast("Any", self.net).std)

    @property
    def description(self) -> dict[str, Any]:
        """What config.json holds."""
        return {
            "format": FORMAT,
            "network": {key: value for key, value in asdict(self.recipe).items() if value},
            "taxonomy": None if self.taxonomy is None else self.taxonomy.to_dict(),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def forward(self, images: Tensor) -> Tensor:
        """Final logits (N, K, h, w) of normalised images (N, C, H, W)."""
        logits: Tensor = self.net(images)
        return logits

    @classmethod
    def from_pretrained(  # type: ignore[override]  # what the mixin fills from config.json is read here
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """Builds the network that config.json describes and fills it.

        Args:
            pretrained_model_name_or_path: A folder, or `owner/name` on the hub.
            revision: Branch, tag or commit on the hub.
            cache_dir: Where downloads are kept.
            force_download: Also what is there.
            local_files_only: Never ask the network.
            token: Of the hub.

        Returns:
            The network in training mode, as torch makes them.

        Raises:
            CheckpointError: a file is missing, unreadable, cannot be fetched, or is of another network.
            NetworkError: this release does not know the network.
        """
        asked = {
            "revision": revision,
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
            "token": token,
        }
        place = str(pretrained_model_name_or_path)
        config_file, weight_file = (_fetch(place, name, asked) for name in (CONFIG, WEIGHTS))
        recipe, taxonomy, config = _read_config(config_file)
        net = recipe.build()
        _fill(net, weight_file)
        cast("Any", net).mean, cast("Any", net).std = tuple(config["mean"]), tuple(config["std"])
        return cls(net, recipe.name, recipe.options, taxonomy)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads what `save_pretrained` writes; options as in huggingface_hub (token, private, commit_message, ...).

        Returns:
            Address of the commit.

        Raises:
            CheckpointError: the hub refused or could not be reached.
        """
        try:
            return super().push_to_hub(repo_id, **options)
        except UserError:
            raise
        except Exception as error:  # the hub's client has many kinds, some of its own HTTP library
            raise CheckpointError(
                f"'{repo_id}' could not be uploaded ({_reason(error)}); log in with `hf auth login` or give token=,"
                " or use save_pretrained(folder)"
            ) from None

    def _save_pretrained(self, save_directory: Path) -> None:
        state = self.net.state_dict()
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        self._check(tensors)
        write_atomically(save_directory / WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
        write_json(save_directory / CONFIG, self.description)

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        """Whether the recipe makes this very network: names, shapes and, on noise, logits."""
        with torch.random.fork_rng():
            built = self.recipe.build().eval()
            images = torch.rand(2, cast("Any", self.net).in_channels, 64, 96)
        differs = _mismatch(built, tensors)
        if differs is None:
            built.load_state_dict(dict(tensors))
            # In the memory layout of the other: kernels of another one round otherwise.
            copied = copy.deepcopy(self.net).cpu().float().to(memory_format=torch.contiguous_format).eval()
            with torch.inference_mode():
                if torch.equal(built(images), copied(images)):
                    return
            differs = "its logits are others"
        raise NetworkError(
            f"create('{self.recipe.name}', {self.recipe.num_classes}, **{dict(self.recipe.options)}) does not make this"
            f" network: {differs}; give the name and options that it was created with"
        )


def recipe_of(net: nn.Module, name: str, options: Mapping[str, Any]) -> Recipe:
    """How a network is built anew, with what HS3-Fuse added.

    Where its first weights came from is left out: the file has its weights, and a path is somebody's own.

    Raises:
        NetworkError: it is no network of ours.
    """
    num_classes = getattr(net, "num_classes", None)
    if num_classes is None:
        raise NetworkError(
            f"{type(net).__name__} is no network of hs3seg.networks.create, and cannot be built from a config.json; use"
            " its own save_pretrained, or export_onnx"
        )
    options = {key: value for key, value in options.items() if key != "pretrained"}
    inner, prefix = (net.net, "net.") if isinstance(net, MultiScale) else (net, "")
    if not isinstance(inner, FusedSegmenter):
        return Recipe(name, num_classes, options)
    groups = {f"{prefix}{stage}": k for stage, k in inner.num_groups.items()}
    return Recipe(name, num_classes, options, groups, inner.widths)


def _fetch(place: str, name: str, asked: Mapping[str, Any]) -> Path:
    """The file in a folder, or downloaded."""
    if Path(place).is_dir():
        path = Path(place) / name
        if not path.is_file():
            raise CheckpointError(f"folder '{place}' has no {name}; `save_pretrained` writes {CONFIG} and {WEIGHTS}")
        return path
    try:
        return Path(hf_hub_download(place, name, **asked))
    except Exception as error:  # the hub's client has many kinds, some of its own HTTP library
        raise CheckpointError(
            f"'{place}' is no folder here, and {name} could not be had from the Hugging Face hub ({_reason(error)});"
            " give a folder with both files, or owner/name of a repository that you can reach"
        ) from None


def _read_config(path: Path) -> tuple[Recipe, Taxonomy | None, dict[str, Any]]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.get("format") != FORMAT:
            raise CheckpointError(f"{path}: format is {config.get('format')!r}, expected '{FORMAT}'")
        network = config["network"]
        widths = network.get("widths")
        recipe = Recipe(
            network["name"],
            network["num_classes"],
            {key: value for key, value in network.get("options", {}).items() if key != "pretrained"},
            network.get("groups", {}),
            None if widths is None else (widths[0], widths[1]),
        )
        taxonomy = None if config["taxonomy"] is None else Taxonomy.from_dict(config["taxonomy"], str(path))
        if not all(len(config[key]) for key in ("mean", "std")):
            raise KeyError("mean")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{path}: not a config.json of hs3seg ({_reason(error)}); save the network again"
        ) from None
    return recipe, taxonomy, config


def _fill(net: nn.Module, path: Path) -> None:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}); copy it again") from None
    differs = _mismatch(net, tensors)
    if differs is not None:
        raise CheckpointError(f"{path}: not the weights of the network in {CONFIG}: {differs}; save the network again")
    net.load_state_dict(tensors)


def _mismatch(net: nn.Module, tensors: Mapping[str, Tensor]) -> str | None:
    """What differs between a network's state and tensors, in words."""
    own = net.state_dict()
    for name in own.keys() | tensors.keys():
        if name not in tensors:
            return f"'{name}' is missing"
        if name not in own:
            return f"'{name}' is not in it"
        if own[name].shape != tensors[name].shape:
            return f"'{name}' has shape {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}"
    return None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
