"""All that a killed run needs to go on, in one safetensors file: weights, their average, the optimizer, the step.

In: a network, its averages, its optimizers. Out: a file, whole or not at all; or the same objects, filled again.
Read next: `trainer.py`. No pickle is written or read, and the file does not depend on the number of devices.

Draws and the order of clips have no state: see `batches.py`.
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


class StateError(ValueError):
    """A state that does not belong to this run, or cannot be read."""


class Average:
    """An exponential moving average of weights, in float32.

    Args:
        network: Whose weights.
        decay: Share of the average that stays at each step; it grows from 0, so that the first weights fade.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: weight.detach().clone() for name, weight in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards the weights after step number `step`, counted from 0."""
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
    """Write the state after `step` steps; every device takes part, one of them writes.

    Args:
        path: The file.
        network: The weights.
        average: Their average.
        optimizers: Those of the run, in order.
        step: Steps done.
        identity: What must be the same for a run to go on: recipe, model, data.
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
        write_tensors(path, tensors, {"about": json.dumps({"step": step, "identity": identity}, sort_keys=True)})


def load_state(
    path: Path,
    network: nn.Module,
    average: Average | None,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    identity: Mapping[str, Any],
) -> int:
    """Fill network, average and optimizers from a state; return the steps done.

    Raises:
        StateError: If it cannot be read, or belongs to a run with another identity; the sentence names what differs.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has no base class of its own that it promises
        raise StateError(
            f"{path} cannot be read ({error}); delete it to begin anew, or train in another folder with "
            f"`--start {path.parent}/checkpoint.safetensors`, which goes on from the weights alone."
        ) from error
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
                held = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
                optimizer.state[weight] = {key: _like(value, weight) for key, value in held.items()}
    return int(about["step"])


def _same(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if differing := list(_differing("", stored, wanted)):
        raise StateError(
            f"{path} is of another run: {'; '.join(differing)}; take another folder, or the same settings."
        )


def _differing(name: str, stored: Any, wanted: Any) -> Iterator[str]:
    """Yield every setting that differs, with what it was and what it is now."""
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        for key in sorted(stored.keys() | wanted.keys()):
            yield from _differing(f"{name}.{key}" if name else key, stored.get(key), wanted.get(key))
    elif stored != wanted:
        yield f"its {name} is {stored!r:.80}, this one's is {wanted!r:.80}"


def gathered(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU, gathered where it is spread over devices."""
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().cpu().contiguous().clone()


def _like(tensor: Tensor, model: Tensor) -> Tensor:
    """Return a whole tensor where another one is: on its device, spread as it is; counts stay on the CPU."""
    if tensor.dim() == 0:
        return tensor
    placed = tensor.to(model.device)
    if hasattr(model, "device_mesh") and tensor.shape == model.shape:
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(placed, model.device_mesh, model.placements)  # type: ignore[attr-defined]
    return placed
