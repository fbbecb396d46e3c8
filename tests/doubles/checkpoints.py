"""A whole model in the layout of the release (diffusers' VAE, UMT5, a transformer), with tiny random weights.

In: nothing. Out: a bundle to write in every layout.
Read next: `tests/unit/conftest.py`, which makes fixtures of it.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tests.doubles.networks import TINY, network_of
from xwam.checkpoints import convert
from xwam.checkpoints.bundle import Bundle
from xwam.checkpoints.metadata import RELEASED_WEIGHTS
from xwam.codecs.wan_vae import WanVae
from xwam.config import NANO, Bounds, CodecConfig, ModelConfig, TextConfig
from xwam.text.umt5 import UmT5Text

NETWORK = replace(TINY, width=64, num_heads=4, latent_channels=48, text_width=16, text_len=6, eps=1e-6)


MODEL = ModelConfig(
    name="tiny",
    bench="robotwin",
    network=NETWORK,
    codec=CodecConfig(kind="wan22"),
    text=TextConfig(kind="umt5"),
    depth_range=NANO.depth_range,
    bounds=Bounds(
        proprio_low=(0.0, -1.0, -2.0, -1.0, -1.0, -1.0, -1.0, 0.0) * 2,
        proprio_high=(1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0) * 2,
        action_low=(-0.1,) * 14,
        action_high=(0.1,) * 14,
    ),
    image_hw_px=(64, 64),
    views=("static", "wrist", "wrist"),
    arms=("left", "right"),
    control_hz=None,
)


def tokenizer() -> Any:
    """Return a tokenizer of two words that pads with 0 and ends with 1, as umT5's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "open": 3, "drawer": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def tiny_bundle() -> Bundle:
    from diffusers import AutoencoderKLWan
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    vae: Any = AutoencoderKLWan(
        base_dim=4, decoder_base_dim=8, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=1, is_residual=True,
        in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=16,
        latents_mean=[0.1] * 48, latents_std=[2.0] * 48,
    )  # fmt: skip
    config = UMT5Config(
        vocab_size=12, d_model=16, d_kv=4, d_ff=24, num_heads=4, num_layers=2, dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    text = UmT5Text(UMT5EncoderModel(config).eval(), tokenizer(), num_tokens=NETWORK.text_len)
    return Bundle(MODEL, network_of(NETWORK), WanVae(vae.eval().requires_grad_(False)), text)


class Released(NamedTuple):
    """The folder of a released experiment, and a function that rewrites its container."""

    folder: Path
    rewrite: Callable[[Callable[[dict[str, torch.Tensor]], object]], None]


def write_released(bundle: Bundle, folder: Path) -> Released:
    """Return the folder of a released experiment, and a function that rewrites its container."""
    convert.write_released(bundle, folder)
    path = folder / RELEASED_WEIGHTS

    def rewrite(change: Callable[[dict[str, torch.Tensor]], object]) -> None:
        module = {name: value.clone() for name, value in torch.load(path, weights_only=True)["module"].items()}
        change(module)
        torch.save({"module": module}, path)

    return Released(folder, rewrite)


def settings_of(folder: Path, **changes: Any) -> None:
    import yaml

    path = folder / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        part = settings["dataset"] if name in settings["dataset"] else settings
        part.pop(name, None)
        if value is not None:
            part[name] = value
    path.write_text(yaml.safe_dump(settings))
