"""Shards weights over devices with FSDP2; the weights of a layer are gathered only while it runs.

In: an Accelerator, an objective before and after it is prepared. Out: the objective, sharded by layer, if the training
was started with FSDP2 (`accelerate launch --use_fsdp --fsdp_version 2`); otherwise unchanged.
Read next: `trainer.py`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from xwam.network.attention import Attention
from xwam.network.layers import Block

FORWARD_METHODS = ("query", "key_value", "query_key_value", "read")
"""Methods of `Attention` that are called instead of `forward`. FSDP2 gathers weights only for registered methods."""


def plan_sharding(accelerator: Any) -> None:
    """Set the units that FSDP2 gathers: each attention, and the rest of each block.

    Weights are sent in float32 and autocast casts matrices where they are used, as on one device. FSDP2's own policy
    would also round the weights of the modulation and of the timesteps. Every device has loaded the weights itself.
    """
    if not accelerator.is_fsdp2:
        return
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    plugin = accelerator.state.fsdp_plugin
    plugin.auto_wrap_policy = transformer_auto_wrap_policy
    plugin.transformer_cls_names_to_wrap = [Attention.__name__, Block.__name__]
    plugin.mixed_precision_policy, plugin.cpu_ram_efficient_loading, plugin.reshard_after_forward = None, False, True


def register_forward_methods(accelerator: Any, objective: nn.Module) -> None:
    """Register the methods of each sharded attention, and cast as on one device.

    Accelerate leaves casting to FSDP2's policy, which is not used here.
    """
    if not accelerator.is_fsdp2:
        return
    from torch.distributed.fsdp import register_fsdp_forward_method

    forward: Any = objective.forward

    def cast(*inputs: Any) -> Any:
        with accelerator.autocast():
            return forward(*inputs)

    objective.forward = cast  # type: ignore[method-assign]
    for module in objective.modules():
        for name in FORWARD_METHODS if isinstance(module, Attention) else ():
            register_fsdp_forward_method(module, name)


def reshard(objective: nn.Module) -> None:
    """Shard the outermost weights again, which FSDP2 keeps gathered after a forward pass without a backward pass."""
    from torch.distributed.fsdp import FSDPModule

    for module in objective.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
