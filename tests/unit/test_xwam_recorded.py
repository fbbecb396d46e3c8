"""Passes that are recorded once per size and replayed, or compiled.

In: a small network; where there is no GPU, a stand-in for a CUDA graph that computes the same pass again between the
same tensors, which is what a graph does to its memory. Out: a comparison with the network.
Read next: `xwam/network/recorded.py`.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from evalkit.contracts.errors import BadConfig
from tests.doubles.networks import ACTIONS, STATES, inputs_of, network_of, started
from tests.doubles.xwam import PLUGIN, RANDOM
from xwam.flow.sampler import run
from xwam.network import recorded
from xwam.network.recorded import RecordedNetwork, compile_blocks
from xwam.network.transformer import Denoised, XwamNetwork

ON_GPU = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
)


def again(work: Callable[[], Denoised]) -> tuple[Callable[[], None], Denoised]:
    """Stand in for a CUDA graph: a replay writes to the tensors of the first pass."""
    outputs = work()

    def replay() -> None:
        for place, part in zip(outputs, work(), strict=True):
            if place is not None and part is not None:
                place.copy_(part)

    return replay, outputs


def passed(
    model: XwamNetwork | RecordedNetwork, seed: int, *, batch: int = 2, depth: bool = False
) -> list[torch.Tensor]:
    device = next(model.parameters()).device
    video, action, proprio, prompt = (part.to(device) for part in inputs_of(batch, seed))
    level = torch.full((batch,), 100.0 * seed, device=device)
    network = model.network if isinstance(model, RecordedNetwork) else model
    times = network.timesteps(level, level / 2, network.geometry(video, ACTIONS, STATES))
    out = model(video, action, proprio, times, network.encode_text(prompt), depth=depth)
    return [part for part in out if part is not None]


@pytest.mark.parametrize("device", ["cpu", ON_GPU])
@torch.inference_mode()
def test_a_replayed_pass_is_the_networks(device: str) -> None:
    network = network_of().to(device)
    model = RecordedNetwork(network, again if device == "cpu" else None)
    first = passed(model, 1)
    for seed in (1, 2, 3, 1):
        for depth in (False, True):
            found, expected = passed(model, seed, depth=depth), passed(network, seed, depth=depth)
            assert len(found) == len(expected) == 3 + depth
            for one, two in zip(found, expected, strict=True):
                torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    assert len(model) == 2
    assert all(torch.equal(one, two) for one, two in zip(first, passed(model, 1), strict=True))


@torch.inference_mode()
def test_every_size_has_its_own_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MAX_RECORDINGS", 2)
    network, sizes = network_of(), list[int]()

    def count(work: Callable[[], Denoised]) -> tuple[Callable[[], None], Denoised]:
        replay, outputs = again(work)
        sizes.append(len(outputs.video_BCTVHW))
        return replay, outputs

    model = RecordedNetwork(network, count)
    for batch in (1, 2, 1, 3, 1, 2):  # 2 is the one that is dropped for 3
        found, expected = passed(model, 1, batch=batch), passed(network, 1, batch=batch)
        assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    assert sizes == [1, 2, 3, 2]
    assert len(model) == 2


@torch.inference_mode()
def test_a_whole_denoising_is_the_networks() -> None:
    network = network_of()
    state, model = started(network), RecordedNetwork(network, again)
    found, expected = run(model, state), run(network, state)
    assert torch.equal(found.video.x, expected.video.x)
    assert torch.equal(found.action.x, expected.action.x)


def test_gradients_pass_through_the_network_itself() -> None:
    network = network_of()
    model = RecordedNetwork(network, again)
    video, action, proprio, prompt = inputs_of(1)
    action.requires_grad_(True)
    level = torch.full((1,), 100.0)
    times = network.timesteps(level, level, network.geometry(video, ACTIONS, STATES))
    out = model(video, action, proprio, times, network.encode_text(prompt))
    out.action_BKA.sum().backward()  # type: ignore[no-untyped-call]
    assert action.grad is not None
    assert len(model) == 0


def test_how_passes_are_computed_is_in_the_provenance() -> None:
    assert "passes" not in PLUGIN.provenance(RANDOM)
    assert PLUGIN.provenance(replace(RANDOM, compile=True))["passes"] == "blocks compiled by torch"
    both = replace(RANDOM, compile=True, cuda_graphs=True, device="cuda")
    assert PLUGIN.provenance(both)["passes"].endswith("compiled by torch, recorded and replayed as CUDA graphs")
    with pytest.raises(BadConfig, match=r"cuda_graphs=true needs policy\.xwam\.device=cuda, got cpu"):
        PLUGIN.spec(replace(RANDOM, cuda_graphs=True))


@pytest.mark.slow
@torch.inference_mode()
def test_compiled_blocks_give_the_same() -> None:
    network = network_of()
    expected = passed(network, 1, depth=True)
    compile_blocks(network)
    for one, two in zip(passed(network, 1, depth=True), expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
