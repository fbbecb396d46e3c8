"""How fast the model is: `python -m xwam.serving.speed`, a table anyone with a GPU can print.

In: nothing; random weights of the released size. Out: milliseconds a chunk, beside the straight reading on the same
device, and the share of the matrix-multiply peak.
Read next: `xwam/network/transformer.py`, which is timed; `xwam/network/reference.py`, beside which;
`tests/bench/denoise.py` for figures on a CPU.

The peak is measured, not quoted: the best of a few large matrix products in the same type.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from xwam.checkpoints.bundle import init_weights
from xwam.cli import call
from xwam.config import NANO, RELEASE_GEOMETRY, WAN22_5B, Geometry, NetworkConfig
from xwam.flow.sampler import Denoiser, SamplerState, Schedule, begin, run
from xwam.network.reference import StraightReading
from xwam.network.transformer import XwamNetwork

SIZES: dict[str, tuple[NetworkConfig, Geometry]] = {
    "5b": (WAN22_5B, RELEASE_GEOMETRY),
    "nano": (NANO.network, replace(RELEASE_GEOMETRY, rows=2, cols=2)),
}
PEAK_SIZE = {"cuda": 8192, "cpu": 1024}
NUM_WORDS = 20
COLUMNS = ("compiled", "batch", "steps", "ms a chunk", "straight ms a chunk", "ratio", "FLOPs of peak")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        compiled: Whether our blocks are compiled; the straight reading never is.
        batch: Requests in a pass.
        steps: Passes until the actions are clean.
        ms: Time of one chunk, that of the batch divided by its size.
        straight_ms: The same for the straight reading.
        peak_frac: Share of the measured matrix-multiply peak (model FLOPs utilisation).
    """

    compiled: bool
    batch: int
    steps: int
    ms: float
    straight_ms: float
    peak_frac: float

    def cells(self) -> tuple[str, ...]:
        """Return what the table shows."""
        times = (f"{self.ms:.1f}", f"{self.straight_ms:.1f}", f"{self.ms / self.straight_ms:.3f}")
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
    twin = _block_flops(config, video, video + geometry.num_tokens, num_text)
    return config.num_blocks * main + (config.num_depth_blocks * twin if depth else 0.0)


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
    return network.cast(dtype).eval().requires_grad_(False)


def started(
    model: XwamNetwork | StraightReading, config: NetworkConfig, geometry: Geometry, schedule: Schedule, batch: int
) -> SamplerState:
    """Return a batch of requests before their first pass."""
    (high, wide), g = config.patch_hw, geometry
    device = next(model.parameters()).device
    video_shape = (batch, config.latent_channels, g.num_frames, g.num_views, g.rows * high, g.cols * wide)
    shapes = (video_shape, (batch, g.num_actions, config.action_dim), (batch, g.num_proprios, config.proprio_dim))
    video, action, proprio = (torch.randn(shape, device=device) for shape in shapes)
    text = torch.zeros(batch, config.text_len, config.text_width, device=device)
    text[:, :NUM_WORDS] = torch.randn_like(text[:, :NUM_WORDS])
    return begin(
        schedule,
        noise_video_BCTVHW=video,
        noise_action_BKA=action,
        noise_proprio_BPS=proprio,
        seen_latent_BCVHW=video[:, :, 0],
        seen_proprio_BS=proprio[:, 0],
        text=model.encode_text(text),
    )


@torch.inference_mode()
def table(
    config: NetworkConfig,
    geometry: Geometry,
    *,
    device: torch.device,
    dtype: torch.dtype,
    steps: Sequence[int] = (5, 8, 10),
    batches: Sequence[int] = (1, 4, 16),
    compiling: Sequence[bool] = (False, True),
    rounds: int = 3,
) -> list[Row]:
    """Return times until the actions are clean; ours and the straight reading's are taken in turn."""
    peak, network = matmul_peak(dtype, device), random_network(config, dtype, device)
    straight, rows = StraightReading(network, geometry), []
    for compiled in compiling:
        for block in network.main_blocks() if compiled else ():
            block.compile()  # the straight reading calls a block's parts and never the block
        for batch in batches:
            for num_steps in steps:
                schedule = Schedule(num_video_steps=max(num_steps, 10), num_action_steps=num_steps)
                begun = [(model, started(model, config, geometry, schedule, batch)) for model in (network, straight)]
                works = [_until_actions(network, begun[0][1]), _until_actions(straight, begun[1][1])]
                for work in works:
                    work()
                taken = [[_time(work, device) for work in works] for _ in range(rounds)]
                seconds, straight_seconds = (min(column) for column in zip(*taken, strict=True))
                one = step_flops(config, geometry, num_text=begun[0][1].text.num_tokens)
                rows.append(
                    Row(
                        compiled=compiled,
                        batch=batch,
                        steps=num_steps,
                        ms=seconds * 1e3 / batch,
                        straight_ms=straight_seconds * 1e3 / batch,
                        peak_frac=batch * num_steps * one / seconds / peak,
                    )
                )
    return rows


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


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def speed(
    size: Annotated[str, typer.Option(help=f"Size of the network: {' or '.join(SIZES)}.")] = "5b",
    steps: Annotated[list[int], typer.Option(help="Action steps; may be given more than once.")] = [5, 8, 10],  # noqa: B006
    batch: Annotated[list[int], typer.Option(help="Requests in a pass; may be given more than once.")] = [1, 4, 16],  # noqa: B006
    rounds: Annotated[int, typer.Option(min=1, help="Times of which the best is taken.")] = 3,
    device: Annotated[str, typer.Option(help="Where: cuda or cpu.")] = "cuda",
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Time the compiled network too.")] = True,
) -> None:
    """Print milliseconds a chunk beside the straight reading, and the share of the matrix-multiply peak.

    Examples: `python -m xwam.serving.speed` ·
    `python -m xwam.serving.speed --size nano --device cpu --steps 5 --batch 1 --no-compile`
    """
    if size not in SIZES:
        raise ValueError(f"--size must be {' or '.join(SIZES)}, got {size}.")
    if device not in PEAK_SIZE:
        raise ValueError(f"--device must be {' or '.join(PEAK_SIZE)}, got {device}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("this needs a CUDA device and found none; give --device cpu --size nano for a try without.")
    where, dtype = torch.device(device), torch.bfloat16 if device == "cuda" else torch.float32
    config, geometry = SIZES[size]
    compiling = (False, True) if compiled else (False,)
    rows = table(
        config, geometry, device=where, dtype=dtype, steps=steps, batches=batch, compiling=compiling, rounds=rounds
    )
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    shown = Table(*COLUMNS, box=None, pad_edge=False, title=f"{size} in {str(dtype)[6:]} on {name}")
    for row in rows:
        shown.add_row(*row.cells())
    Console().print(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit status."""
    return call(app, "python -m xwam.serving.speed", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
