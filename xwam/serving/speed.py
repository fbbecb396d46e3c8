"""Times the network on this machine: milliseconds for a chunk of actions, and how much of the device they use.

In: a size and a device; weights are random. Out: a table with our network and the reference network in turn.
Read next: `xwam/network/transformer.py` and `xwam/network/reference.py`, which are timed; `tests/bench/denoise.py` for
figures on a CPU.

The peak of the device is measured, not quoted: the fastest of a few large matrix products in the same type.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xwam.checkpoints.fresh import init_weights
from xwam.config import NANO, RELEASE_GEOMETRY, WAN22_5B, Geometry, NetworkConfig
from xwam.flow.sampler import Denoiser, SamplerState, Schedule, begin, run
from xwam.network.reference import ReferenceNetwork
from xwam.network.transformer import XwamNetwork
from xwam.text.tokens import TextTokens
from xwam.text.umt5 import padding_counts

if TYPE_CHECKING:
    from rich.table import Table

SIZES: dict[str, tuple[NetworkConfig, Geometry]] = {
    "5b": (WAN22_5B, RELEASE_GEOMETRY),
    "nano": (NANO.network, replace(RELEASE_GEOMETRY, rows=2, cols=2)),
}
PEAK_SIZE = {"cuda": 8192, "cpu": 1024}
NUM_WORDS = 20
"""Tokens of the prompt; equal text places behind it are as many as umT5 gives."""
COLUMNS = ("compiled", "batch", "steps", "ms per chunk", "reference ms per chunk", "ratio", "FLOPs of peak")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        compiled: Whether our blocks are compiled; those of the reference network never are.
        batch: Requests in a pass.
        steps: Passes until the actions are fully denoised.
        ms: Time of one chunk, that of the batch divided by its size.
        reference_ms: The same for the reference network.
        peak_frac: Share of the measured matrix-multiply peak (model FLOPs utilisation).
    """

    compiled: bool
    batch: int
    steps: int
    ms: float
    reference_ms: float
    peak_frac: float

    def cells(self) -> tuple[str, ...]:
        """Return what the table shows."""
        times = (f"{self.ms:.1f}", f"{self.reference_ms:.1f}", f"{self.ms / self.reference_ms:.3f}")
        return ("yes" if self.compiled else "no", str(self.batch), str(self.steps), *times, f"{self.peak_frac:.3f}")


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
    depth_block = _block_flops(config, video, video + geometry.num_tokens, num_text)
    return config.num_blocks * main + (config.num_depth_blocks * depth_block if depth else 0.0)


def _block_flops(config: NetworkConfig, tokens: int, keys: int, num_text: int) -> float:
    d = config.width
    matrices = 2.0 * tokens * (6 * d * d + 2 * d * config.ffn_width)  # q, k, v, o; cross q, o; the MLP
    return matrices + 4.0 * tokens * d * (keys + num_text)


def matmul_peak(dtype: torch.dtype, device: torch.device, *, rounds: int = 20) -> float:
    """Return the best measured operations a second of a square matrix product."""
    size = PEAK_SIZE[device.type]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / min(_time(lambda: a @ b, device) for _ in range(rounds))


def random_network(config: NetworkConfig, dtype: torch.dtype, device: torch.device) -> XwamNetwork:
    """Return random weights, built on the device."""
    with torch.device("meta"):
        network = XwamNetwork(config)
    network = network.to_empty(device=device)
    if config.width <= NANO.network.width:
        init_weights(network.cpu(), 0).to(device)
    else:
        for weight in network.parameters():
            weight.data.normal_(0, 0.02)
    network = network.cast(dtype).eval().requires_grad_(False)
    return network.join_projections() if device.type == "cpu" else network


def started(
    model: XwamNetwork | ReferenceNetwork, config: NetworkConfig, geometry: Geometry, schedule: Schedule, batch: int
) -> SamplerState:
    """Return a batch of requests before their first pass."""
    (high, wide), g = config.patch_hw, geometry
    device = next(model.parameters()).device
    video_shape = (batch, config.latent_channels, g.num_frames, g.num_views, g.rows * high, g.cols * wide)
    shapes = (video_shape, (batch, g.num_actions, config.action_dim), (batch, g.num_proprios, config.proprio_dim))
    video, action, proprio = (torch.randn(shape, device=device) for shape in shapes)
    return begin(
        schedule,
        noise_video_BCTVHW=video,
        noise_action_BKA=action,
        noise_proprio_BPS=proprio,
        seen_latent_BCVHW=video[:, :, 0],
        seen_proprio_BS=proprio[:, 0],
        text=model.encode_text(random_text(config, batch, device)),
    )


def random_text(config: NetworkConfig, batch: int, device: torch.device) -> TextTokens:
    """Return text as umT5 gives it for a prompt of `NUM_WORDS` tokens: places behind it repeat each other."""
    num_words = min(NUM_WORDS, config.text_len)
    counts = [1] * num_words + padding_counts(num_words, config.text_len)
    rows_BMW = torch.randn(batch, len(counts), config.text_width, device=device)
    return TextTokens(rows_BMW, torch.tensor(counts).expand(batch, -1))


@torch.inference_mode()
def time_rows(
    config: NetworkConfig,
    geometry: Geometry,
    *,
    device: torch.device,
    dtype: torch.dtype,
    steps: Sequence[int],
    batches: Sequence[int],
    compiling: Sequence[bool],
    rounds: int,
) -> list[Row]:
    """Return times until the actions are clean; ours and those of the reference network are taken in turn."""
    peak, network = matmul_peak(dtype, device), random_network(config, dtype, device)
    reference, rows = ReferenceNetwork(network, geometry), []
    for compiled in compiling:
        for block in network.main_blocks() if compiled else ():
            block.compile()  # the reference network calls a block's parts and never the block
        for batch in batches:
            for num_steps in steps:
                schedule = Schedule(num_video_steps=max(num_steps, 10), num_action_steps=num_steps)
                states = [started(model, config, geometry, schedule, batch) for model in (network, reference)]
                works = [_until_actions(network, states[0]), _until_actions(reference, states[1])]
                seconds, reference_seconds = _fastest(works, device, rounds)
                flops = batch * num_steps * step_flops(config, geometry, num_text=states[0].text.num_tokens)
                rows.append(
                    Row(
                        compiled=compiled,
                        batch=batch,
                        steps=num_steps,
                        ms=seconds * 1e3 / batch,
                        reference_ms=reference_seconds * 1e3 / batch,
                        peak_frac=flops / seconds / peak,
                    )
                )
    return rows


def _fastest(works: Sequence[Callable[[], SamplerState]], device: torch.device, rounds: int) -> list[float]:
    """Return the shortest time of each, seconds, after one run of each that does not count."""
    for work in works:
        work()
    taken_s = [[_time(work, device) for work in works] for _ in range(rounds)]
    return [min(column) for column in zip(*taken_s, strict=True)]


def _until_actions(model: Denoiser, state: SamplerState) -> Callable[[], SamplerState]:
    return lambda: run(model, state, stop_after_actions=True, depth=False)


def _time(work: Callable[[], Tensor | SamplerState], device: torch.device) -> float:
    _wait(device)
    begun = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(
    *,
    size: str = "5b",
    device: str = "cuda",
    steps: Sequence[int] = (5, 8, 10),
    batches: Sequence[int] = (1, 4, 16),
    rounds: int = 3,
    compiled: bool = True,
) -> Table:
    """Return the printable table of one network size on one device.

    Args:
        size: A key of `SIZES`.
        device: A key of `PEAK_SIZE`.
        steps: Denoising steps of the actions, one row for each.
        batches: Requests in a pass, rows for each.
        rounds: Repetitions of which the fastest counts; at least 1.
        compiled: Whether the compiled network is timed too.

    Raises:
        ValueError: If size or device are unknown, or there is no such device.
    """
    from rich.table import Table

    if size not in SIZES:
        raise ValueError(f"--size must be {' or '.join(SIZES)}, got {size}.")
    if device not in PEAK_SIZE:
        raise ValueError(f"--device must be {' or '.join(PEAK_SIZE)}, got {device}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("xwam speed found no CUDA device; without one, run `xwam speed --device cpu --size nano`.")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    rows = time_rows(
        *SIZES[size],
        device=torch.device(device),
        dtype=dtype,
        steps=steps,
        batches=batches,
        compiling=(False, True) if compiled else (False,),
        rounds=rounds,
    )
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    table = Table(*COLUMNS, box=None, pad_edge=False, title=f"{size} in {str(dtype)[6:]} on {name}")
    for row in rows:
        table.add_row(*row.cells())
    return table
