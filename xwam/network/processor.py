"""What the processor is good at, and whether operations may write where they like.

In: the tensors of an operation. Out: which way to compute it.
Read next: `attention.py` and `layers.py`, which ask.

No answer depends on a measurement at run time, or results would differ from run to run.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def functional() -> bool:
    """Return whether results must be new tensors: gradients are recorded, or the compiler fuses the operations."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def by_hand(x: Tensor) -> bool:
    """Return whether operations may be chosen for this CPU: no gradient, compiler or autocast, which choose too."""
    return x.device.type == "cpu" and not functional() and not torch.is_autocast_enabled("cpu")


@cache
def multiplies_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 with AVX512-BF16.

    With AMX (Intel, from 2023), PyTorch's own attention is fast too; that is not measured here.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()  # type: ignore[no-untyped-call]


@cache
def _fuses_gelu() -> bool:
    """Return whether PyTorch has oneDNN's product with GELU, and this CPU multiplies bfloat16."""
    return multiplies_bfloat16() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


MANY_RESULTS = 1 << 15
"""From so many results on, oneDNN gains more than it takes to prepare a product."""


def linear_gelu(x_BLD: Tensor, linear: nn.Linear) -> Tensor:
    """Return GELU (tanh form) of a linear layer.

    In bfloat16, oneDNN applies GELU to each product before it leaves the cache, as it does for `torch.compile`. The
    result differs from that of two operations by rounding alone. In float32 this was slower where other processes fill
    the cache, so that two operations stay there.
    """
    if by_hand(x_BLD) and _is_faster_in_one(x_BLD, linear):
        fused = torch.ops.mkldnn._linear_pointwise
        return fused(x_BLD, linear.weight, linear.bias, "gelu", [], "tanh")  # type: ignore[no-any-return]
    return F.gelu(linear(x_BLD), approximate="tanh")


def _is_faster_in_one(x_BLD: Tensor, linear: nn.Linear) -> bool:
    """Return whether oneDNN computes this layer with GELU, and faster than two operations."""
    num_results = x_BLD.shape[:-1].numel() * linear.out_features
    is_bfloat16 = x_BLD.dtype == linear.weight.dtype == torch.bfloat16
    return num_results >= MANY_RESULTS and is_bfloat16 and _fuses_gelu()
