"""Tensors between files and modules, without a second copy, with errors that name the wrong tensor.

In: a module on the meta device, a path. Out: a filled module, tensors by name.
Read next: `bundle.py`, which knows the layouts.
"""

from __future__ import annotations

import functools
import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from evalkit.contracts.files import whole_file
from xwam.checkpoints.metadata import CheckpointError, read_metadata

SHOWN_PROBLEMS = 5


class _LeaveUnset(TorchFunctionMode):
    """Skips the operations by which modules set first values and for which torch imports its compiler, 2 s long."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.normal_, Tensor.div, Tensor.__truediv__):
            return args[0] if args else kwargs["tensor"]
        if func is torch.randn:
            return torch.empty(*args, **kwargs)
        return func(*args, **kwargs)


@contextmanager
def without_values() -> Iterator[None]:
    """Build modules inside the block on the meta device: shapes and types without values, for `fill`."""
    with torch.device("meta"), _LeaveUnset():
        yield


def fill(module: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Put weights into a module built on the meta device, without copying them.

    Args:
        module: The module.
        weights: Tensors by the module's names.
        source: First words of the error message.

    Raises:
        CheckpointError: Names missing, unexpected and misshapen tensors.
    """
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    problems = [f"'{name}' is missing" for name in expected if name not in weights]
    problems += [f"'{name}' is not part of the network" for name in weights if name not in expected]
    problems += [
        f"'{name}' has shape {tuple(weights[name].shape)} in place of {shape}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise CheckpointError(f"{source} does not fit the network: {', '.join(problems[:SHOWN_PROBLEMS])}{more}.")
    module.load_state_dict(dict(weights), strict=True, assign=True)


def stored_type(weights: Mapping[str, Tensor]) -> torch.dtype:
    """Return the type that holds every matrix of a checkpoint without loss: the widest of its types.

    Example:
        >>> stored_type({"a": torch.ones(2, 2).bfloat16(), "b": torch.ones(2)})
        torch.bfloat16
    """
    matrices = [weight.dtype for weight in weights.values() if weight.dim() > 1 and weight.is_floating_point()]
    return functools.reduce(torch.promote_types, matrices) if matrices else torch.float32


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `.safetensors`, `.safetensors.index.json`, `.pt` or `.pth` file, mapped from disk.

    Raises:
        CheckpointError: If the file is missing, cut off, or holds more than tensors.
    """
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    if path.suffix == ".safetensors":
        read_metadata(path)
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} cannot be read as safetensors: {error}.") from error
    return _only_tensors(read_pickle(path), path)


def read_pickle(path: Path) -> Any:
    """Return the content of a file that `torch.save` wrote: tensors and plain containers, mapped from disk.

    Raises:
        CheckpointError: If the file is missing, cut off, or would construct other objects.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))  # torch's message also advises to disable the check
        reason = f"it asks for '{forbidden[1]}'" if forbidden else "it is no plain pickle"
        raise CheckpointError(f"{path} holds more than tensors and is refused: {reason}.") from None
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError):
        raise CheckpointError(f"{path} is cut off or was not written by torch.save.") from None


def _read_shards(index: Path) -> dict[str, Tensor]:
    if not index.is_file():
        raise CheckpointError(f"There is no checkpoint at {index}.")
    files = json.loads(index.read_text())["weight_map"]
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(files.values())):
        tensors |= read_tensors(index.parent / name)
    lost = sorted(set(files) - set(tensors))
    if lost:
        raise CheckpointError(f"{index} promises '{lost[0]}' in {files[lost[0]]}, which does not hold it.")
    return tensors


def _only_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a dictionary of tensors, it holds {type(content).__name__}.")
    return only_tensors(content, path)


def only_tensors(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Return the content, which must be tensors by name.

    Raises:
        CheckpointError: Names the first that is not.
    """
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path} must hold tensors alone, '{name}' is of type {type(value).__name__}.")
    return dict(content)


def under(module: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, without the prefix."""
    return {name.removeprefix(prefix): value for name, value in module.items() if name.startswith(prefix)}


def write_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None, *, temporary: Path | None = None
) -> None:
    """Write a safetensors file; it appears whole or not at all, and equal content gives equal bytes.

    Args:
        path: The file.
        tensors: Tensors by name.
        metadata: Texts for the header.
        temporary: Where to write first; give one of its own where several processes may write the file at once.

    Raises:
        OSError: If it cannot be written, for example because the disk is full; a file that was there before stays.
    """
    try:
        with whole_file(path, temporary=temporary) as partial:
            partial.unlink(missing_ok=True)
            partial.touch()
            mode = partial.stat().st_mode  # the user's umask; safetensors lets only the owner read
            save_file(tensors, partial, metadata)
            _sort_metadata(partial)
            partial.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{path} cannot be written: {error}") from error


def _sort_metadata(path: Path) -> None:
    """Sort the texts in a header by name; safetensors writes them in any order."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header |= {"__metadata__": dict(sorted(header["__metadata__"].items()))} if "__metadata__" in header else {}
        ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
        assert len(ordered) == length, "the same header in another order"
        file.seek(8)
        file.write(ordered)
