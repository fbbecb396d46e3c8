"""LPIPS, the learned perceptual distance, without the lpips package and without torchvision.

In: uint8 images; ImageNet weights of AlexNet, SqueezeNet 1.1 or VGG16 from a folder or the torch hub cache. Out: the
distances of lpips 0.1.4 (v0.1 heads, which ship with evalkit), or the reason why they are unavailable.
Read next: `evalkit/score/chunk.py`, which scores frames with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from evalkit.contracts.errors import EvalkitError
from evalkit.score.metrics.device import is_device_failure

if TYPE_CHECKING:
    import torch

Net = Literal["alex", "squeeze", "vgg"]
NETS: tuple[Net, ...] = ("alex", "squeeze", "vgg")
WEIGHTS_VARIABLE = "EVALKIT_LPIPS_WEIGHTS"
HEADS_PATH = Path(__file__).with_name("lpips_heads_v0.1.safetensors")


class Backbone(NamedTuple):
    """Sources of a network's weights: torchvision's file, the file of a whole LPIPS state dict, the download URL."""

    torchvision_file: str
    lpips_file: str
    url: str


_URL = "https://download.pytorch.org/models/"
BACKBONES: dict[Net, Backbone] = {
    "alex": Backbone("alexnet-owt-7be5be79.pth", "lpips_alex_full.pth", _URL + "alexnet-owt-7be5be79.pth"),
    "squeeze": Backbone("squeezenet1_1-b8a52dc0.pth", "lpips_squeeze_full.pth", _URL + "squeezenet1_1-b8a52dc0.pth"),
    "vgg": Backbone("vgg16-397923af.pth", "lpips_vgg_full.pth", _URL + "vgg16-397923af.pth"),
}

State = Mapping[str, "torch.Tensor"]
Features = list["torch.Tensor"]


class LpipsUnavailable(EvalkitError):
    """The weights are missing or unusable."""


def find_weights(net: Net, folder: Path | None = None) -> Path:
    """Return the file that holds a network's weights; nothing is downloaded.

    Args:
        net: Which network.
        folder: Searched first; then `EVALKIT_LPIPS_WEIGHTS` and the torch hub cache.

    Raises:
        LpipsUnavailable: If no folder has it; the message says how to get it.
    """
    variable = os.environ.get(WEIGHTS_VARIABLE)
    folders = [folder, Path(variable) if variable else None, _hub_folder()]
    for candidate in folders:
        for name in (BACKBONES[net].lpips_file, BACKBONES[net].torchvision_file):
            if candidate is not None and (candidate / name).is_file():
                return candidate / name
    raise LpipsUnavailable(
        f"LPIPS ({net}) is unavailable, because {BACKBONES[net].torchvision_file} is not in the torch hub cache "
        f"({_hub_folder()}); fetch {BACKBONES[net].url} into it, or name its folder in {WEIGHTS_VARIABLE}."
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Lpips:
    """One network with its v0.1 heads.

    Attributes:
        net: Which network.
        state: `features.<layer>...` of the backbone, as torchvision names them.
        heads: A weight a channel and layer, 1,C,1,1 each.
        device: Where it runs.
    """

    net: Net
    state: State
    heads: tuple[torch.Tensor, ...]
    device: str = "cpu"

    def features(self, rgb_nhwc_u8: np.ndarray) -> Features:
        """Return unit-length features of N images, one tensor a layer; reusable for several comparisons."""
        import torch

        x = torch.from_numpy(np.ascontiguousarray(rgb_nhwc_u8)).to(self.device).permute(0, 3, 1, 2).float()
        shift = torch.tensor([-0.030, -0.088, -0.188], device=self.device).view(1, 3, 1, 1)
        scale = torch.tensor([0.458, 0.448, 0.450], device=self.device).view(1, 3, 1, 1)
        # TF32, torch's default for convolutions on a GPU, would keep three digits of the CPU's values.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            layers = _LAYERS[self.net](self.state, (x / 255.0 * 2.0 - 1.0 - shift) / scale)
            return [layer / (layer.square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for layer in layers]

    def distances(self, true: Features, pred: Features) -> np.ndarray:
        """Return one distance for each pair of images, from their features; lower is more similar."""
        import torch

        with torch.inference_mode():
            layers = zip(self.heads, true, pred, strict=True)
            total = sum(((a - b).square() * head).sum(dim=1).mean(dim=(1, 2)) for head, a, b in layers)
        assert isinstance(total, torch.Tensor)
        return total.double().cpu().numpy()

    def __call__(self, true_nhwc_u8: np.ndarray, pred_nhwc_u8: np.ndarray) -> np.ndarray:
        """Return the LPIPS of N pairs of uint8 images; they enter the network in [-1, 1]."""
        return self.distances(self.features(true_nhwc_u8), self.features(pred_nhwc_u8))


@lru_cache(maxsize=3)
def load(net: Net, folder: Path | None = None, device: str = "cpu") -> Lpips:
    """Return a network, loaded safely (`weights_only=True`, safetensors).

    Raises:
        LpipsUnavailable: If its weights are missing or broken.
    """
    import torch
    from safetensors.torch import load_file

    path = find_weights(net, folder)
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        backbone = {_torchvision_name(name): value for name, value in state.items() if ".slice" in name} or state
        backbone = {name: value.to(device) for name, value in backbone.items() if name.startswith("features.")}
        heads = {name: value.to(device) for name, value in load_file(HEADS_PATH).items()}
    except Exception as error:
        raise LpipsUnavailable(f"LPIPS ({net}) is unavailable, because {path} cannot be read: {error}.") from error
    count = sum(name.startswith(f"{net}.") for name in heads)
    lpips = Lpips(
        net=net,
        state=backbone,
        heads=tuple(heads[f"{net}.lin{layer}.model.1.weight"] for layer in range(count)),
        device=device,
    )
    _check(lpips, path)
    return lpips


def _check(lpips: Lpips, path: Path) -> None:
    """Raise LpipsUnavailable if the weights belong to another network."""
    try:
        lpips.features(np.zeros((1, 64, 64, 3), np.uint8))
    except (KeyError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and is_device_failure(error):
            raise
        raise LpipsUnavailable(
            f"LPIPS ({lpips.net}) is unavailable, because {path} holds no {lpips.net} weights: {error}."
        ) from error


def _torchvision_name(name: str) -> str:
    """Return `features.3.weight` for `net.slice2.3.weight`, lpips' own name of the same layer."""
    return "features." + name.split(".", 2)[2]


def _hub_folder() -> Path:
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def _conv(state: State, layer: str, x: torch.Tensor, *, stride: int = 1, padding: int = 0) -> torch.Tensor:
    from torch.nn import functional

    weight, bias = state[f"features.{layer}.weight"], state[f"features.{layer}.bias"]
    return functional.relu(functional.conv2d(x, weight, bias, stride=stride, padding=padding))


def _alex(state: State, x: torch.Tensor) -> Features:
    from torch.nn import functional

    layers = [_conv(state, "0", x, stride=4, padding=2)]
    layers.append(_conv(state, "3", functional.max_pool2d(layers[-1], 3, 2), padding=2))
    layers.append(_conv(state, "6", functional.max_pool2d(layers[-1], 3, 2), padding=1))
    layers.append(_conv(state, "8", layers[-1], padding=1))
    layers.append(_conv(state, "10", layers[-1], padding=1))
    return layers


def _squeeze(state: State, x: torch.Tensor) -> Features:
    import torch
    from torch.nn import functional

    def fire(layer: int, x: torch.Tensor) -> torch.Tensor:
        squeezed = _conv(state, f"{layer}.squeeze", x)
        narrow, wide = f"{layer}.expand1x1", f"{layer}.expand3x3"
        return torch.cat([_conv(state, narrow, squeezed), _conv(state, wide, squeezed, padding=1)], dim=1)

    def pool(x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(x, 3, 2, ceil_mode=True)

    layers = [_conv(state, "0", x, stride=2)]
    for first, second in ((3, 4), (6, 7)):
        layers.append(fire(second, fire(first, pool(layers[-1]))))
    layers.append(fire(9, pool(layers[-1])))
    for last in (10, 11, 12):
        layers.append(fire(last, layers[-1]))
    return layers


def _vgg(state: State, x: torch.Tensor) -> Features:
    from torch.nn import functional

    layers: Features = []
    for block in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
        x = functional.max_pool2d(x, 2, 2) if layers else x
        for layer in block:
            x = _conv(state, str(layer), x, padding=1)
        layers.append(x)
    return layers


_LAYERS: dict[Net, Callable[[State, torch.Tensor], Features]] = {"alex": _alex, "squeeze": _squeeze, "vgg": _vgg}
