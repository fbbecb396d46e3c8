"""Writes `goldens`: inputs and outputs of small models, computed in float32 on a CPU by the slow reference.

In: nothing; nano's observation is kept if it is there. Out: the files in `goldens`.
Read next: `cases.py`, which reads them. Run it with `python tools/gpu_check/make_goldens.py [FOLDER]`.

The network is `xwam/network/reference.py`, not the one that gpu-check runs on the device. VAE and text encoder are
those of diffusers and transformers. `tests/parity/xwam.py` holds the same code against the released one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import torch
from safetensors.torch import save_file
from torch import Tensor

from gpu_check import cases, nano
from xwam.config import Geometry
from xwam.network.reference import ReferenceNetwork
from xwam.text.umt5 import encode_ids

BATCH, FRAMES, VIEWS, ROWS, COLS, ACTIONS, STATES, WORDS = 2, 3, 3, 4, 4, 8, 3, 12
CHANNELS, TEXT_WIDTH = 16, 24
NETWORK: dict[str, Any] = {
    "dim": 96,
    "ffn_dim": 192,
    "num_heads": 4,
    "num_layers": 4,
    "num_extra_layers": 2,
    "in_dim": CHANNELS,
    "out_dim": CHANNELS,
    "text_dim": TEXT_WIDTH,
    "text_len": WORDS,
    "freq_dim": 32,
}
RUNS = {"async_10_4": {"video_steps": 10, "action_steps": 4}, "sync_8": {"video_steps": 8, "action_steps": 8}}
VAE: dict[str, Any] = {
    "base_dim": 8,
    "decoder_base_dim": 8,
    "z_dim": 8,
    "dim_mult": [1, 2, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.1 * channel for channel in range(8)],
    "latents_std": [1.0 + 0.1 * channel for channel in range(8)],
}
UMT5: dict[str, Any] = {
    "vocab_size": 64,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_heads": 4,
    "num_layers": 3,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
}
VIDEO_SHAPE = (BATCH, CHANNELS, FRAMES, VIEWS, ROWS, COLS)


def main(folder: Path) -> None:
    """Write every file."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    forward = {name: cases.seeded(shape, f"forward {name}") for name, shape in _inputs("").items()}
    forward["context"][:, WORDS // 2 :] = forward["context"][:, -1:]  # equal text places, which are read once
    forward |= {
        "t_video": torch.tensor([[0.0, 900.0, 900.0], [0.0, 312.5, 312.5]]),
        "t_actions": torch.tensor([700.0, 1.0]),
        "t_proprios": torch.tensor([[0.0, 700.0, 700.0], [0.0, 40.0, 41.0]]),
    }
    _write(folder / "dit_forward.safetensors", forward, config=NETWORK)
    network = cases.network_of(folder)
    reference = _reference(network)
    with torch.inference_mode():
        outputs = cases.network_forward(reference, forward, reference.encode_text)
        _write(folder / "dit_forward.safetensors", forward | outputs, config=NETWORK)
        loop = {name: cases.seeded(shape, f"loop {name}") for name, shape in _inputs("noise_").items()}
        loop |= {
            "cond_latents": cases.seeded(VIDEO_SHAPE, "seen"),
            "cond_proprios": cases.seeded((BATCH, 1, 16), "now"),
        }
        ends = cases.denoised(reference, loop, RUNS, reference.encode_text)
        _write(folder / "async_sampler.safetensors", loop | ends, runs=RUNS)
        training = _training_inputs()
        values = cases.training_losses(reference, training, reference.encode_text)
        _write(folder / "training_loss.safetensors", training | values)
        video = torch.tanh(cases.seeded((1, 3, 5, 32, 32), "video"))
        vae = cases.wan_vae(VAE)
        latents = vae.encode(video)
        vae_data = {"video": video, "latents": latents, "reconstruction": vae.decode(latents)}
        _write(folder / "vae22_forward.safetensors", vae_data, config=VAE)
        text = {"ids": (torch.arange(40).reshape(2, 20) * 7) % 64, "mask": torch.ones(2, 20, dtype=torch.long)}
        text["mask"][0, 5:], text["mask"][1, 12:] = 0, 0
        text["out"] = encode_ids(cases.umt5(UMT5), text["ids"], text["mask"])
        _write(folder / "t5_forward.safetensors", text, config=UMT5)
    nano.write(folder)


def _inputs(prefix: str) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}video": VIDEO_SHAPE,
        f"{prefix}actions": (BATCH, ACTIONS, 14),
        f"{prefix}proprios": (BATCH, STATES, 16),
        "context": (BATCH, WORDS, TEXT_WIDTH),
    }


def _reference(network: Any) -> ReferenceNetwork:
    geometry = Geometry(
        num_frames=FRAMES,
        num_views=VIEWS,
        rows=ROWS // 2,
        cols=COLS // 2,
        num_actions=ACTIONS,
        num_proprios=STATES,
    )
    return ReferenceNetwork(network, geometry)


def _training_inputs() -> dict[str, Tensor]:
    shapes = _inputs("noise_") | {"latents": VIDEO_SHAPE, "depth_latents": VIDEO_SHAPE}
    shapes |= {"actions": (BATCH, ACTIONS, 14), "proprios": (BATCH, STATES, 16)}
    data = {name: cases.seeded(shape, f"training {name}") for name, shape in shapes.items()}
    one_arm = torch.arange(14) < 7
    return data | {
        "action_mask": one_arm.float().expand(BATCH, ACTIONS, 14).contiguous(),
        "proprio_mask": (torch.arange(16) < 8).float().expand(BATCH, STATES, 16).contiguous(),
        "t_video_unshifted": torch.tensor([0.7, 0.2]),
        "t_action_unshifted": torch.tensor([0.4, 0.0]),
        "clean_action": torch.tensor([0, 1]),
    }


def _write(path: Path, tensors: dict[str, Tensor], **settings: Any) -> None:
    texts = {name: json.dumps(value) for name, value in settings.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, texts)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else cases.GOLDENS)
