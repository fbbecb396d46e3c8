"""LPIPS, the learned perceptual distance, without the lpips package and without torchvision.

In: uint8 images; the weights of AlexNet or SqueezeNet 1.1 in this package, or others, as of VGG16, from a folder or the
torch hub cache. Out: the distances of lpips 0.1.4 (v0.1 heads), or the reason why they are unavailable.
Read next: `evalkit/score/chunk.py`, which scores frames with it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from evalkit.contracts.errors import BadConfig, EvalkitError
from evalkit.score.metrics.device import is_device_failure
from evalkit.score.results.outcome import Measure

if TYPE_CHECKING:
    import torch

Net = Literal["alex", "squeeze", "vgg"]
NETS: tuple[Net, ...] = ("alex", "squeeze", "vgg")
WEIGHTS_VARIABLE = "EVALKIT_LPIPS_WEIGHTS"
PACKAGED = Path(__file__).with_name("lpips_weights")
"""The heads, and the backbones of `PACKAGED_SHA256`; its README.md names their sources."""

PACKAGED_SHA256: dict[Net, str] = {
    "alex": "195266a4c8e96483085621ac3389a6c24f1dd0963c9ac0e001705d24ece83273",
    "squeeze": "e93098750a62e61ef70cc50f01c17f7eccd8b4c075997affea326c113b362a6e",
}
"""`tensors_sha256` of the backbones in this package: torchvision's, with which LPIPS v0.1 is published."""


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
        folder: Searched first; then `EVALKIT_LPIPS_WEIGHTS`, this package and the torch hub cache.

    Raises:
        LpipsUnavailable: If no folder has it; the message says how to get it.
    """
    variable = os.environ.get(WEIGHTS_VARIABLE)
    foreign = (BACKBONES[net].lpips_file, BACKBONES[net].torchvision_file)
    given = [each / name for each in (folder, Path(variable) if variable else None) if each for name in foreign]
    candidates = [*given, PACKAGED / f"{net}.safetensors", *(_hub_folder() / name for name in foreign)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise LpipsUnavailable(
        f"LPIPS ({net}) is unavailable, because {BACKBONES[net].torchvision_file} is not in the torch hub cache "
        f"({_hub_folder()}); fetch {BACKBONES[net].url} into it, name its folder in {WEIGHTS_VARIABLE}, or use "
        f"--lpips {','.join(PACKAGED_SHA256)}, whose weights ship with evalkit."
    )


def check_folder(folder: Path, nets: Sequence[Net]) -> None:
    """Raise BadConfig unless a folder that is to be searched holds the weights of at least one of the networks."""
    files = [name for net in nets for name in (BACKBONES[net].torchvision_file, BACKBONES[net].lpips_file)]
    if not any((folder / name).is_file() for name in files):
        holds = "holds no LPIPS weights" if folder.is_dir() else "is not a folder"
        raise BadConfig(
            f"--lpips-weights {folder} {holds}; expected one of {', '.join(files)}. Leave the option out to use the "
            f"weights that ship with evalkit ({', '.join(PACKAGED_SHA256)})."
        )


def tensors_sha256(state: State) -> str:
    """Return a hash of names, shapes and values of tensors, whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)}\n".encode())
        digest.update(state[name].float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Lpips:
    """One network with its v0.1 heads.

    Attributes:
        net: Which network.
        state: `features.<layer>...` of the backbone, as torchvision names them.
        heads: A weight a channel and layer, 1,C,1,1 each.
        sha256: `tensors_sha256` of the backbone.
        device: Where it runs.
    """

    net: Net
    state: State
    heads: tuple[torch.Tensor, ...]
    sha256: str
    device: str = "cpu"

    def measure(self, distance: float) -> Measure:
        """Return a distance with a remark if the weights are not those of this package."""
        packaged = PACKAGED_SHA256.get(self.net)
        if self.sha256 == packaged:
            return Measure(distance)
        status = "ok" if packaged is None else "other_weights"
        return Measure(distance, status, f"{self.net} backbone with sha256 {self.sha256[:12]} of its tensors")

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

    def distances_from(self, true: Features, true_nhwc_u8: np.ndarray, pred_nhwc_u8: np.ndarray) -> np.ndarray:
        """Return the LPIPS of N pairs of uint8 images, given the features of the true ones.

        A prediction equal to its ground truth has distance 0; one that repeats the image before it costs nothing.
        """
        distances = np.zeros(len(pred_nhwc_u8))
        differs = [
            idx for idx, pair in enumerate(zip(true_nhwc_u8, pred_nhwc_u8, strict=True)) if not np.array_equal(*pair)
        ]
        if not differs:
            return distances
        images = pred_nhwc_u8[differs]
        is_new = [not np.array_equal(image, before) for before, image in pairwise(images)]
        image_of = np.cumsum([0, *is_new])
        pred = self.features(images[np.flatnonzero([True, *is_new])])
        distances[differs] = self.distances([layer[differs] for layer in true], [layer[image_of] for layer in pred])
        return distances

    def __call__(self, true_nhwc_u8: np.ndarray, pred_nhwc_u8: np.ndarray) -> np.ndarray:
        """Return the LPIPS of N pairs of uint8 images; they enter the network in [-1, 1]."""
        return self.distances_from(self.features(true_nhwc_u8), true_nhwc_u8, pred_nhwc_u8)


@lru_cache(maxsize=3)
def load(net: Net, folder: Path | None = None, device: str = "cpu") -> Lpips:
    """Return a network, loaded safely (`weights_only=True`, safetensors).

    Raises:
        LpipsUnavailable: If its weights are missing or broken.
    """
    from safetensors.torch import load_file

    path = find_weights(net, folder)
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _torch_load(path)
        backbone = {_torchvision_name(name): value for name, value in state.items() if ".slice" in name} or state
        backbone = {name: value.to(device) for name, value in backbone.items() if name.startswith("features.")}
        heads = {name: value.to(device) for name, value in load_file(PACKAGED / "heads_v0.1.safetensors").items()}
    except Exception as error:
        raise LpipsUnavailable(f"LPIPS ({net}) is unavailable, because {path} cannot be read: {error}.") from error
    count = sum(name.startswith(f"{net}.") for name in heads)
    lpips = Lpips(
        net=net,
        state=backbone,
        heads=tuple(heads[f"{net}.lin{layer}.model.1.weight"] for layer in range(count)),
        sha256=tensors_sha256(backbone),
        device=device,
    )
    _check(lpips, path)
    return lpips


def _torch_load(path: Path) -> State:
    import torch

    state: State = torch.load(path, weights_only=True, map_location="cpu")
    return state


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
