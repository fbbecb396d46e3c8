"""FSDP2: weights spread over devices, each layer's gathered only while it runs.

In: an Accelerator, an objective before and after it is prepared. Out: the same, sharded by layer, where FSDP2 was asked
for (`accelerate launch --use_fsdp --fsdp_version 2`); else nothing happens.
Read next: `trainer.py`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from xwam.network.layers import Attention, Block

FORWARD_METHODS = ("query", "key_value", "query_key_value", "read")
"""What is called of an `Attention` in place of `forward`: FSDP2 must know, or weights are not gathered."""


def plan_sharding(accelerator: Any) -> None:
    """Say what is gathered by itself: an attention, and what else there is of a block.

    Weights travel in float32 and autocast casts matrices where they are used, as on one device: FSDP2's own policy
    would round the modulation and the timesteps' weights too. Each device has loaded the weights; none is sent around.
    """
    if not accelerator.is_fsdp2:
        return
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    plugin = accelerator.state.fsdp_plugin
    plugin.auto_wrap_policy = transformer_auto_wrap_policy
    plugin.transformer_cls_names_to_wrap = [Attention.__name__, Block.__name__]
    plugin.mixed_precision_policy, plugin.cpu_ram_efficient_loading, plugin.reshard_after_forward = None, False, True


def register_forward_methods(accelerator: Any, objective: nn.Module) -> None:
    """Let the weights of a sharded attention be gathered whichever of its methods is called; cast as on one device.

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
    for part in objective.modules():
        for name in FORWARD_METHODS if isinstance(part, Attention) else ():
            register_fsdp_forward_method(part, name)


def reshard(objective: nn.Module) -> None:
    """Spread out again what FSDP2 keeps gathered after a pass without a backward one: the outermost weights."""
    from torch.distributed.fsdp import FSDPModule

    for part in objective.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
