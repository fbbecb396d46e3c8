"""Names of the same tensors elsewhere: in Wan's own files, in diffusers and in transformers.

In: a tensor's name. Out: its name elsewhere; every renaming has an inverse.
Read next: `bundle.py`, which reads the files.

Our transformer uses Wan's names, so only those of diffusers are translated; the VAE and the text encoder are built by
diffusers and transformers, so Wan's names are translated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

ADDITIONS = (
    "view_embedding",
    "place_embedding",
    "action_",
    "proprio_encoder",
    "proprio_decoder",
    "extra_",
    "registers",
)
"""First parts of the names of the tensors that X-WAM and other families add to Wan's transformer."""

ACTION_BLOCK = ".action."
"""Part of the names of blocks that a network adds for actions alone."""

_DIT = (
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^head\.head\.", "proj_out."),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"\.modulation$", ".scale_shift_table"),
    (r"\.self_attn\.([qkv])\.", r".attn1.to_\1."),
    (r"\.cross_attn\.([qkv])\.", r".attn2.to_\1."),
    (r"\.self_attn\.o\.", ".attn1.to_out.0."),
    (r"\.cross_attn\.o\.", ".attn2.to_out.0."),
    (r"\.self_attn\.norm_([qk])\.", r".attn1.norm_\1."),
    (r"\.cross_attn\.norm_([qk])\.", r".attn2.norm_\1."),
    (r"\.norm3\.", ".norm2."),  # Wan counts its norms in the order of building, diffusers in that of use
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
)

_UMT5 = (
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.(\d+)\.attn\.([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
    (
        r"^blocks\.(\d+)\.pos_embedding\.embedding\.",
        r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.",
    ),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
)

_VAE = (
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
    (r"^(encoder|decoder)\.head\.0\.", r"\1.norm_out."),
    (r"^(encoder|decoder)\.head\.2\.", r"\1.conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.downsamples\.(\d+)\.downsamples\.\d+\.(resample|time_conv)\.", r".down_blocks.\1.downsampler.\2."),
    (r"\.upsamples\.(\d+)\.upsamples\.\d+\.(resample|time_conv)\.", r".up_blocks.\1.upsampler.\2."),
    (r"\.downsamples\.(\d+)\.downsamples\.(\d+)\.", r".down_blocks.\1.resnets.\2."),
    (r"\.upsamples\.(\d+)\.upsamples\.(\d+)\.", r".up_blocks.\1.resnets.\2."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
)


def is_addition(name: str) -> bool:
    """Return whether a tensor is none of Wan's transformer.

    Example:
        >>> [is_addition(name) for name in ("view_embedding.weight", "blocks.0.action.ffn.0.bias", "head.head.bias")]
        [True, True, False]
    """
    return name.startswith(ADDITIONS) or ACTION_BLOCK in name


def diffusers_dit_name(wan_name: str) -> str:
    """Return the diffusers name of a tensor of Wan's transformer; additions of X-WAM keep their names.

    Example:
        >>> diffusers_dit_name("blocks.3.norm3.weight"), diffusers_dit_name("blocks.3.cross_attn.o.bias")
        ('blocks.3.norm2.weight', 'blocks.3.attn2.to_out.0.bias')
    """
    return wan_name if is_addition(wan_name) else _rename(wan_name, _DIT)


def transformers_umt5_name(wan_name: str) -> str:
    """Return the transformers name of a tensor of Wan's umT5 encoder.

    Example:
        >>> transformers_umt5_name("blocks.1.ffn.fc2.weight")
        'encoder.block.1.layer.1.DenseReluDense.wo.weight'
    """
    return _rename(wan_name, _UMT5)


def diffusers_vae_name(wan_name: str) -> str:
    """Return the diffusers name of a tensor of the Wan2.2 VAE.

    Example:
        >>> diffusers_vae_name("encoder.downsamples.1.downsamples.2.time_conv.bias")
        'encoder.down_blocks.1.downsampler.time_conv.bias'
    """
    return _rename(wan_name, _VAE)


def wan_dit_name(diffusers_name: str) -> str:
    """Return Wan's name for the diffusers name of a tensor of the transformer; the inverse of `diffusers_dit_name`.

    Example:
        >>> wan_dit_name("blocks.3.norm2.weight"), wan_dit_name("blocks.3.attn1.to_q.bias")
        ('blocks.3.norm3.weight', 'blocks.3.self_attn.q.bias')
    """
    return diffusers_name if is_addition(diffusers_name) else _restore(diffusers_name, _DIT)


def wan_umt5_name(transformers_name: str) -> str:
    """Return Wan's name for the transformers name of a tensor of umT5; the inverse of `transformers_umt5_name`."""
    return _restore(transformers_name, _UMT5)


def wan_vae_name(diffusers_name: str, *, num_res_blocks: int) -> str:
    """Return Wan's name for the diffusers name of a tensor of the VAE.

    Args:
        diffusers_name: The name.
        num_res_blocks: Residual blocks of an encoder stage; Wan counts a stage's resampling as its next layer.

    Example:
        >>> wan_vae_name("decoder.up_blocks.0.upsampler.time_conv.bias", num_res_blocks=2)
        'decoder.upsamples.0.upsamples.3.time_conv.bias'
    """
    last = {"down": num_res_blocks, "up": num_res_blocks + 1}
    name = re.sub(
        r"\.(down|up)_blocks\.(\d+)\.\1sampler\.",
        lambda match: f".{match[1]}samples.{match[2]}.{match[1]}samples.{last[match[1]]}.",
        diffusers_name,
    )
    return _restore(name, [rule for rule in _VAE if "sampler" not in rule[1]])


def is_diffusers_dit(names: Iterable[str]) -> bool:
    """Return whether the names are those that diffusers gives to Wan's transformer."""
    return any(name.startswith("condition_embedder.") for name in names)


def _rename(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _restore(name: str, rules: Iterable[tuple[str, str]]) -> str:
    """Return the name before `_rename`: the same rules in reverse, with their groups exchanged."""
    for pattern, replacement in reversed(list(rules)):
        groups = re.findall(r"\((?:\\d\+|\[\w+\]|[\w|]+)\)", pattern)
        turned = re.escape(replacement)
        plain = pattern.lstrip("^").rstrip("$").replace("\\.", ".")
        for index, group in enumerate(groups, start=1):
            turned = turned.replace(rf"\\{index}", group)
            plain = plain.replace(group, rf"\{index}", 1)
        start, end = "^" * pattern.startswith("^"), "$" * pattern.endswith("$")
        name = re.sub(start + turned + end, plain, name)
    return name
