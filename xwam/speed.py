"""How fast the model is on a GPU: `python -m xwam.speed`, a table anyone with a GPU can print.

In: nothing; random weights of the released size. Out: milliseconds a chunk and the share of the matrix-multiply peak.
Read next: `network.py`, which is timed; `tests/bench/denoise.py` for the same on a CPU.

The peak is measured, not quoted: the best of a few large matrix products in the same type.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from xwam.checkpoints import init_weights
from xwam.config import NANO, RELEASE_GEOMETRY, WAN22_5B, Geometry, NetworkConfig
from xwam.network import XwamNetwork
from xwam.sampler import SamplerState, Schedule, begin, run

SIZES: dict[str, tuple[NetworkConfig, Geometry]] = {
    "5b": (WAN22_5B, RELEASE_GEOMETRY),
    "nano": (NANO.network, replace(RELEASE_GEOMETRY, rows=4, cols=4)),
}


def step_flops(config: NetworkConfig, geometry: Geometry, *, num_text: int, depth: bool = False) -> float:
    """Return the floating-point operations of one pass over one request; a multiply and an add count two.

    Args:
        config: The network.
        geometry: The tokens.
        num_text: Text tokens that are read.
        depth: Whether the depth branch runs.
    """
    main = _block_flops(config, geometry.num_tokens, geometry.num_tokens, num_text)
    video = geometry.num_video_tokens
    twin = _block_flops(config, video, video + geometry.num_tokens, num_text)
    return config.num_blocks * main + (config.num_depth_blocks * twin if depth else 0.0)


def _block_flops(config: NetworkConfig, tokens: int, keys: int, num_text: int) -> float:
    d = config.width
    matrices = 2.0 * tokens * (6 * d * d + 2 * d * config.ffn_width)  # q, k, v, o; cross q, o; the MLP
    return matrices + 4.0 * tokens * d * (keys + num_text)


def matmul_peak(dtype: torch.dtype, *, size: int = 8192, rounds: int = 20) -> float:
    """Return the best measured operations a second of a square matrix product."""
    a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    return 2 * size**3 / min(_time(lambda: a @ b) for _ in range(rounds))


def random_network(config: NetworkConfig, dtype: torch.dtype) -> XwamNetwork:
    """Return random weights on the GPU, built there."""
    with torch.device("meta"):
        network = XwamNetwork(config)
    network = network.to_empty(device="cuda")
    if config.width <= NANO.network.width:
        init_weights(network.cpu(), 0).to("cuda")
    else:
        for weight in network.parameters():
            weight.data.normal_(0, 0.02)
    return network.cast(dtype).eval().requires_grad_(False)


def started(network: XwamNetwork, geometry: Geometry, schedule: Schedule, batch: int) -> SamplerState:
    """Return a batch of requests before their first pass."""
    config, (high, wide) = network.config, network.config.patch_hw
    g = geometry
    video_shape = (batch, config.latent_channels, g.num_frames, g.num_views, g.rows * high, g.cols * wide)
    shapes = (video_shape, (batch, g.num_actions, config.action_dim), (batch, g.num_proprios, config.proprio_dim))
    video, action, proprio = (torch.randn(shape, device="cuda") for shape in shapes)
    text = torch.zeros(batch, config.text_len, config.text_width, device="cuda")
    text[:, :20] = torch.randn(batch, 20, config.text_width, device="cuda")
    return begin(
        schedule,
        noise_video_BCTVHW=video,
        noise_action_BKA=action,
        noise_proprio_BPS=proprio,
        seen_latent_BCVHW=video[:, :, 0],
        seen_proprio_BS=proprio[:, 0],
        text=network.encode_text(text),
    )


@torch.inference_mode()
def row(
    network: XwamNetwork, geometry: Geometry, *, steps: int, batch: int, peak: float, rounds: int
) -> dict[str, float]:
    """Return milliseconds until the actions of a batch are clean, a chunk, and the share of the peak."""
    state = started(network, geometry, Schedule(num_video_steps=max(steps, 10), num_action_steps=steps), batch)
    seconds = min(_time(lambda: run(network, state, stop_after_actions=True, depth=False)) for _ in range(rounds))
    flops = batch * steps * step_flops(network.config, geometry, num_text=state.text.num_tokens)
    return {"ms": seconds * 1e3, "ms_a_chunk": seconds * 1e3 / batch, "mfu": flops / seconds / peak}


def _time(work: Callable[[], Tensor | SamplerState]) -> float:
    torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one JSON line a combination of compiling, batch and steps."""
    parser = argparse.ArgumentParser(prog="python -m xwam.speed", description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="5b")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 8, 10])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compile", action="store_true", help="time the plain network only")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("xwam.speed: this needs a CUDA device and found none.", file=sys.stderr)
        return 2
    config, geometry = SIZES[options.size]
    peak = matmul_peak(torch.bfloat16)
    print(json.dumps({"device": torch.cuda.get_device_name(), "matmul_peak_tflops": round(peak / 1e12, 1)}))
    network = random_network(config, torch.bfloat16)
    for compiled in (False,) if options.no_compile else (False, True):
        if compiled:
            for block in network.main_blocks():
                block.compile()
        for batch in options.batch:
            for steps in options.steps:
                run_once = row(network, geometry, steps=steps, batch=batch, peak=peak, rounds=options.rounds)
                found = {name: round(value, 3) for name, value in run_once.items()}
                print(json.dumps({"compiled": compiled, "batch": batch, "steps": steps, **found}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
