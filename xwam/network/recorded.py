"""Passes that are compiled, or recorded once and replayed as CUDA graphs.

In: a network. Out: the same network with compiled blocks; or one with the same interface that replays recordings.
Read next: `transformer.py`, the network; `xwam/policy.py`, whose settings `compile` and `cuda_graphs` choose.

A recording is a list of kernels with fixed addresses, so it serves passes of one size: inputs are copied to where it
reads, outputs from where it writes. Passes have few sizes, because a policy's width is fixed and prompts are filled up
to a bucket.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xwam.network.rope import Rope
from xwam.network.transformer import Denoised, TextContext, Timesteps, XwamNetwork

WARM_UP = 3
"""Passes before one is recorded: libraries choose kernels and take their memory in the first ones."""

MAX_RECORDINGS = 16
"""Sizes whose recordings are kept: with and without depth and guidance, for a few buckets of prompts."""

MAX_COMPILED = 64
"""Sizes for which a block is compiled before torch would compute the next one without a word as if not compiled."""

Record = Callable[[Callable[[], Denoised]], tuple[Callable[[], None], Denoised]]
"""From a pass over fixed tensors: a function that repeats it, and the tensors that it writes."""


def compile_blocks(network: XwamNetwork) -> None:
    """Let torch compile every block at its first pass of each size; one takes about a minute on a CPU."""
    config = torch._dynamo.config  # type: ignore[attr-defined]
    config.recompile_limit = max(config.recompile_limit, MAX_COMPILED)
    for block in (*network.main_blocks(), *network.depth_blocks()):
        block.compile(dynamic=False)


class Recording(NamedTuple):
    """A recorded pass.

    Attributes:
        inputs: Tensors that it reads, in the order of `_inputs`.
        replay: Repeats it.
        outputs: Tensors that it writes.
        rope: Rotations that it reads; they must live as long as it does.
    """

    inputs: list[Tensor]
    replay: Callable[[], None]
    outputs: Denoised
    rope: Rope


class RecordedNetwork:
    """An `XwamNetwork` whose passes are recorded at the first of each size and replayed afterwards.

    Where gradients are recorded (real-time chunking by guidance), the network itself computes. Its weights must stay
    where they are in memory.

    Args:
        network: The network, on CUDA.
        record: Makes a recording; a CUDA graph if not given.
    """

    def __init__(self, network: XwamNetwork, record: Record | None = None) -> None:
        self.network, self.geometry, self.timesteps = network, network.geometry, network.timesteps
        self._record = record or CudaGraphs()
        self._recordings: OrderedDict[Hashable, Recording] = OrderedDict()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights."""
        return self.network.parameters()

    def __len__(self) -> int:
        """Return the number of recordings."""
        return len(self._recordings)

    def __call__(
        self,
        video_BCTVHW: Tensor,
        action_BKA: Tensor,
        proprio_BPS: Tensor,
        times: Timesteps,
        text: TextContext,
        *,
        depth: bool = False,
    ) -> Denoised:
        """Return velocities of all modalities; with `depth`, clean depth latents too."""
        if torch.is_grad_enabled():
            return self.network(video_BCTVHW, action_BKA, proprio_BPS, times, text, depth=depth)  # type: ignore[no-any-return]
        text = self.network.with_depth_text(text) if depth else replace(text, depth=())
        given = [video_BCTVHW, action_BKA, proprio_BPS, times.t_BG, *_tensors(text)]
        size = (depth, times.runs, text.bias_BN is None, tuple((part.shape, part.dtype) for part in given))
        recording = self._recordings.pop(size, None) or self._recorded(given, times, text, depth=depth)
        self._recordings[size] = recording
        if len(self._recordings) > MAX_RECORDINGS:
            self._recordings.popitem(last=False)
        for place, part in zip(recording.inputs, given, strict=True):
            place.copy_(part)
        recording.replay()
        return Denoised(*(None if part is None else part.clone() for part in recording.outputs))  # type: ignore[arg-type]

    def _recorded(self, given: Sequence[Tensor], times: Timesteps, text: TextContext, *, depth: bool) -> Recording:
        """Return the recording of a pass of this size."""
        inputs = [part.clone() for part in given]
        video, action, proprio, t_BG, *rest = inputs
        fixed, places = Timesteps(t_BG, times.runs), iter(rest)
        fixed_text = text.map(lambda _: next(places))
        rope = self.network._rope(self.geometry(video, action.shape[1], proprio.shape[1]), video.device)
        replay, outputs = self._record(lambda: self.network(video, action, proprio, fixed, fixed_text, depth=depth))
        return Recording(inputs, replay, outputs, rope)


def _tensors(text: TextContext) -> list[Tensor]:
    """Return the tensors of a context in the order in which `TextContext.map` goes through them."""
    tensors: list[Tensor] = []
    text.map(lambda part: tensors.append(part) or part)  # type: ignore[func-returns-value]
    return tensors


class CudaGraphs:
    """Records passes as CUDA graphs that share one pool of memory: only one of them is replayed at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Denoised]) -> tuple[Callable[[], None], Denoised]:
        """Return a function that replays a pass, and the tensors that it writes."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = work()
        return graph.replay, outputs
