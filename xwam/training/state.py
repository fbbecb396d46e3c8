"""Saves and loads the state of a training: weights, averaged weights, optimizers and the step, in one safetensors file.

In: a network, its averaged weights, its optimizers. Out: a file; or the same objects with the values of the file.
Read next: `trainer.py`. Pickle is not used, and the file does not depend on the number of devices.

Random draws and the order of clips have no state: see `batches.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from xwam.checkpoints.tensors import write_tensors

VERSION = 2
"""Version of the training; increase it when the same recipe, model and data train otherwise."""


class StateError(ValueError):
    """A state that belongs to another run, or cannot be read."""


class Average:
    """An exponential moving average of weights, in float32.

    Args:
        network: The network.
        decay: Share of the average that remains at each step; it grows from 0, so that the first weights fade.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: weight.detach().clone() for name, weight in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Update the average with the weights after step number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, weight in network.named_parameters():
            self.weights[name].lerp_(weight.detach(), 1 - decay)


def save_state(
    path: Path,
    network: nn.Module,
    average: Average | None,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    step: int,
    identity: Mapping[str, Any],
    writer: bool = True,
) -> None:
    """Write the state after `step` steps; every device must call this, and one of them writes.

    Args:
        path: The file.
        network: The network.
        average: The averaged weights.
        optimizers: The optimizers, in order.
        step: Steps done.
        identity: Recipe, model and data; they must be the same when the training resumes.
        writer: Whether this device writes.
    """
    tensors: dict[str, Tensor] = {}
    names = {id(weight): name for name, weight in network.named_parameters()}
    for name, weight in network.named_parameters():
        tensors[f"weight/{name}"] = gathered(weight)
    for name, averaged in (average.weights if average else {}).items():
        tensors[f"average/{name}"] = gathered(averaged)
    for optimizer in optimizers:
        for owner, values in optimizer.state.items():
            for key, value in values.items():
                tensors[f"optimizer/{names[id(owner)]}/{key}"] = gathered(torch.as_tensor(value))
    if writer:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(
            path,
            tensors,
            {"about": json.dumps({"version": VERSION, "step": step, "identity": identity}, sort_keys=True)},
        )


def load_state(
    path: Path,
    network: nn.Module,
    average: Average | None,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    identity: Mapping[str, Any],
) -> int:
    """Load a state into network, averaged weights and optimizers; return the steps done.

    Raises:
        StateError: If it cannot be read, or belongs to a run with another identity; the message names the differences.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors documents no base class of its errors
        raise StateError(
            f"{path} cannot be read ({error}). Delete it to train from the start, or train in another folder with "
            f"`--start {path.parent}/checkpoint.safetensors`, which starts from the weights only."
        ) from error
    if (version := about.get("version", 1)) != VERSION:
        raise StateError(
            f"{path} was written by version {version} of the training; this is version {VERSION}, in which the same "
            f"recipe trains otherwise. Finish it with the evalkit that started it, or train in another folder with "
            f"`--start {path.parent}/checkpoint.safetensors`, which starts from the weights only."
        )
    _same(path, about["identity"], json.loads(json.dumps(identity)))
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(_like(tensors[f"weight/{name}"], weight))
        for name, averaged in (average.weights if average else {}).items():
            averaged.copy_(_like(tensors[f"average/{name}"], averaged))
    for optimizer in optimizers:
        owned = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        for name, weight in weights.items():
            if id(weight) in owned:
                prefix = f"optimizer/{name}/"
                stored = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
                optimizer.state[weight] = {key: _like(value, weight) for key, value in stored.items()}
    return int(about["step"])


def _same(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if differing := list(_differing("", stored, wanted)):
        raise StateError(
            f"{path} belongs to another run: {'; '.join(differing)}. Use another folder or the same settings."
        )


def _differing(name: str, stored: Any, wanted: Any) -> Iterator[str]:
    """Yield every setting that differs, with its old and its new value."""
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        for key in sorted(stored.keys() | wanted.keys()):
            yield from _differing(f"{name}.{key}" if name else key, stored.get(key), wanted.get(key))
    elif stored != wanted:
        yield f"its {name} is {stored!r:.80}, now it is {wanted!r:.80}"


def gathered(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU, gathered if it is sharded over devices."""
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().cpu().contiguous().clone()


def _like(tensor: Tensor, model: Tensor) -> Tensor:
    """Return a tensor on the device of another one, with the same sharding; scalars stay on the CPU."""
    if tensor.dim() == 0:
        return tensor
    placed = tensor.to(model.device)
    if hasattr(model, "device_mesh") and tensor.shape == model.shape:
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(placed, model.device_mesh, model.placements)  # type: ignore[attr-defined]
    return placed
