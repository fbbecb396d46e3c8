"""The training loss: worked examples, and changes that must not matter."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.doubles.networks import ACTIONS, STATES, TINY, inputs_of, network_of
from xwam.config import DepthMode
from xwam.flow.losses import Batch, Noise, losses, masked_mean_square, mean_spectrum
from xwam.flow.noise import NoiseLevels

LEVELS = NoiseLevels(torch.tensor([0.7, 0.4]), torch.tensor([0.3, 0.0]), torch.tensor([False, True]))


def batch_of(mode: DepthMode = "interleaved") -> Any:
    config = replace(TINY, depth=mode)
    video, action, proprio, text = inputs_of()
    mask = torch.ones(2, ACTIONS, 14)
    mask[..., 7:] = 0
    batch = Batch(
        video_BCTVHW=video,
        depth_BCTVHW=video.flip(0) * 0.5,
        action_BKA=action,
        proprio_BPS=proprio,
        action_mask_BKA=mask,
        proprio_mask_BPS=torch.ones(2, STATES, 16),
        executed_BKA=action,
    )
    generator = torch.Generator().manual_seed(3)
    shape = (2, config.state_channels, *video.shape[2:])
    noise = Noise(*(torch.randn(s, generator=generator) for s in (shape, action.shape, proprio.shape)))
    network = network_of(config)
    return network, batch, noise, network.encode_text(text)


def test_masked_mean_of_nothing_is_zero() -> None:
    assert masked_mean_square(torch.ones(3), torch.zeros(3)).item() == 0


def test_what_carries_no_loss_changes_none() -> None:
    network, batch, noise, text = batch_of()
    before = losses(network, batch, noise, LEVELS, text)
    other = Noise(noise.video_BCTVHW.clone(), noise.action_BKA.clone(), noise.proprio_BPS.clone())
    other.video_BCTVHW[:, :, 0] += 1  # the seen frame is not mixed with noise
    other.proprio_BPS[:, 0] += 1  # nor is the seen state
    other.action_BKA[1] += 1  # nor are clean actions, which carry no loss either
    after = losses(network, batch, other, LEVELS, text)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert before.total.item() == pytest.approx(sum(term.item() for term in before[:4]))


def test_the_spectral_loss_is_the_release_s() -> None:
    """Only chunks all of whose actions carry loss count, with every number, the absent arm's too."""
    rng = np.random.default_rng(0)
    error, mask = rng.normal(size=(3, 32, 14)).astype(np.float32), np.ones((3, 32, 14), np.float32)
    mask[..., 7:] = 0  # an absent arm
    mask[1, 5] = 0  # one action that is not trusted
    expected = np.abs(np.fft.rfft(error[[0, 2]], axis=1)).mean()
    found = mean_spectrum(torch.from_numpy(error), torch.from_numpy(mask))
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert mean_spectrum(torch.from_numpy(error), torch.zeros(3, 32, 14)).item() == 0


def test_the_spectral_loss_skips_samples_of_clean_actions() -> None:
    network, batch, noise, text = batch_of()
    seen: dict[str, torch.Tensor] = {}
    network.action_decoder.register_forward_hook(lambda _, inputs, output: seen.update(out=output))
    found = losses(network, batch, noise, LEVELS, text)
    error = (seen["out"] - (noise.action_BKA - batch.action_BKA))[~LEVELS.clean_action_B].numpy()
    assert found.dct.item() == pytest.approx(np.abs(np.fft.rfft(error, axis=1)).mean(), rel=1e-5)


@pytest.mark.parametrize("mode", ["none", "sequence", "channel"])
def test_rivals_have_a_loss_too(mode: DepthMode) -> None:
    network, batch, noise, text = batch_of(mode)
    found = losses(network, batch, noise, LEVELS, text)
    assert (found.depth.item() == 0) == (mode == "none")
    assert found.total.isfinite()


@pytest.mark.parametrize("mode", ["interleaved", "sequence", "channel"])
def test_a_network_that_predicts_clean_video_is_judged_by_it(mode: DepthMode) -> None:
    """The last layer gives zeros here, so the loss is the mean square of the clean latents whatever the noise."""
    network, batch, noise, text = batch_of(mode)
    network.config = replace(network.config, video_prediction="clean")
    network.head.head.weight.zero_()
    network.head.head.bias.zero_()
    found = losses(network, batch, noise, LEVELS, text)
    assert found.video.item() == pytest.approx(batch.video_BCTVHW[:, :, 1:].square().mean().item(), rel=1e-5)
    if mode != "interleaved":
        assert found.depth.item() == pytest.approx(batch.depth_BCTVHW.square().mean().item(), rel=1e-5)


def test_a_network_that_predicts_change_is_judged_by_it() -> None:
    """The last layer gives zeros here: a guess that the present state stays, whatever the noise."""
    network, batch, noise, text = batch_of()
    network.config = replace(network.config, proprio_prediction="change")
    network.proprio_decoder[-1].weight.zero_()
    network.proprio_decoder[-1].bias.zero_()
    found = losses(network, batch, noise, LEVELS, text)
    acting = batch.proprio_BPS[0]  # the other sample has clean actions
    assert found.proprio.item() == pytest.approx((acting[1:] - acting[:1]).square().mean().item(), rel=1e-4)


def test_clean_actions_are_those_that_were_executed() -> None:
    network, batch, noise, text = batch_of()
    other = replace(batch, executed_BKA=batch.executed_BKA + 1)
    first, second = (losses(network, each, noise, LEVELS, text) for each in (batch, other))
    assert first.video != second.video  # the sample with clean actions sees them
    assert (first.action, first.proprio) == (
        second.action,
        second.proprio,
    )  # actions with loss ignore it


def test_a_few_steps_bring_the_loss_down() -> None:
    network, batch, noise, text = batch_of()
    network.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    first = 0.0
    for _ in range(25):
        text = network.encode_text(inputs_of()[3])
        loss = losses(network, batch, noise, LEVELS, text).total
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.7 * first
