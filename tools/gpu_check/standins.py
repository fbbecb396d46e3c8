"""Stands in for two small packages where they are missing, so that the network can be imported without them.

In: nothing. Out: `einops.rearrange` and the names that annotations use of jaxtyping.
Read next: `main.py`, which calls `provide` first.

Everything else that `xwam` needs for a pass of the network is torch, numpy and safetensors.
"""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from torch import Tensor


def provide() -> None:
    """Put stand-ins into `sys.modules` for those packages that are missing."""
    for name, member, value in (("einops", "rearrange", rearrange), ("jaxtyping", "Float", _Annotation)):
        if not is_installed(name):
            module = ModuleType(name)
            module.__spec__ = ModuleSpec(name, None, origin=__file__)
            setattr(module, member, value)
            sys.modules[name] = module


def is_installed(name: str) -> bool:
    """Return whether a package is installed; a stand-in is not the package."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin != __file__


class _Annotation:
    """What an annotation names; nothing evaluates it."""

    def __class_getitem__(cls, item: Any) -> type:
        return cls


def rearrange(tensor: Tensor, pattern: str, **sizes: int) -> Tensor:
    """Return a tensor with its axes split, permuted and merged, as `einops.rearrange` does.

    Args:
        tensor: The tensor.
        pattern: Axes before and after, for example `b (v c) -> v b c`; no ellipsis, no repeated and no unit axes.
        **sizes: Sizes of split axes; one of each group may be left out.

    Example:
        >>> import torch
        >>> rearrange(torch.arange(6)[None], "b (v c) -> v c b", v=2).tolist()
        [[[0], [1], [2]], [[3], [4], [5]]]
    """
    before, after = (_groups(side) for side in pattern.split("->"))
    known = dict(sizes)
    for group, size in zip(before, tensor.shape, strict=True):
        open_axes = [axis for axis in group if axis not in known]
        for axis in open_axes:
            known[axis] = size // math.prod(known[other] for other in group if other in known)
    names = [axis for group in before for axis in group]
    apart = tensor.reshape([known[axis] for axis in names])
    apart = apart.permute([names.index(axis) for group in after for axis in group])
    return apart.reshape([math.prod(known[axis] for axis in group) for group in after])


def _groups(side: str) -> list[list[str]]:
    """Return the axes of one side of a pattern, a list for each axis of the tensor."""
    return [(grouped or alone).split() for grouped, alone in re.findall(r"\(([^)]*)\)|(\w+)", side)]
