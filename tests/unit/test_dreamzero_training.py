"""DreamZero's levels, loss weights and losses, against the official formulas and by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from baselines.dreamzero.levels import BlockLevels, draw_block_levels, loss_weight
from baselines.dreamzero.network import ClipTimes, DreamZeroNetwork
from baselines.dreamzero.objective import losses
from tests.doubles.dreamzero import TINY, clip_of, network_of, same, text_of, with_settings
from xwam.flow.losses import Batch, Noise

MANY = 4000


def drawn(flash_beta: float | None = None) -> BlockLevels:
    generator = torch.Generator().manual_seed(0)
    return draw_block_levels(MANY, num_blocks=4, actions_per_block=3, flash_beta=flash_beta, generator=generator)


def before_shift(sigma: torch.Tensor) -> np.ndarray:
    """Return u of sigma = 5 u / (1 + 4 u)."""
    values = sigma.flatten().double().numpy()
    return np.asarray(values / (5 - 4 * values))


def test_levels_are_uniform_on_the_grid_and_shifted_by_5() -> None:
    levels = drawn()
    for sigma in (levels.first_B, levels.block_BN):
        u = before_shift(sigma)
        assert stats.kstest(u, "uniform").pvalue > 0.01
        np.testing.assert_allclose(u * 1000, np.round(u * 1000), atol=1e-2)
        assert u.min() >= 1e-3 * 0.999
        assert u.max() <= 1.0


def test_actions_share_the_level_of_their_block_alone() -> None:
    levels = drawn()
    assert torch.equal(levels.action_BK, levels.block_BN.repeat_interleave(3, dim=1))
    correlation = np.corrcoef(levels.block_BN.numpy().T) - np.eye(4)
    assert np.abs(correlation).max() < 0.05
    assert abs(np.corrcoef(levels.first_B, levels.block_BN[:, 0])[0, 1]) < 0.05


@pytest.mark.parametrize("alpha", [7.0, 3.0])
def test_flash_draws_video_from_beta_and_actions_uniformly(alpha: float) -> None:
    levels = drawn(alpha)
    video, action = before_shift(levels.block_BN), before_shift(levels.action_BK)
    assert stats.kstest(video, stats.beta(alpha, 1).cdf).pvalue > 0.01
    assert video.mean() == pytest.approx(alpha / (alpha + 1), abs=0.01)
    assert stats.kstest(action, "uniform").pvalue > 0.01
    both = np.corrcoef(np.stack([levels.block_BN[:, 0], *levels.action_BK[:, :3].T]))
    assert np.abs(both - np.eye(4)).max() < 0.05, "levels of actions depend on nothing"


def test_weights_are_those_of_the_official_table() -> None:
    u = np.linspace(1.0, 0.0, 1001)[:-1]
    sigma = 5 * u / (1 + 4 * u)
    bell = np.exp(-2 * ((1000 * sigma - 500) / 1000) ** 2)
    table = (bell - bell.min()) * 1000 / (bell - bell.min()).sum()
    assert table.mean() == pytest.approx(1)
    np.testing.assert_allclose(loss_weight(torch.from_numpy(sigma)).numpy(), table, atol=1e-6)


def batch_of(clip: dict[str, torch.Tensor]) -> Batch:
    num, steps = clip["action_BKA"].shape[:2]
    frames = (clip["clean_BCTVHW"].shape[2] - 1) * 4
    proprio = torch.full((num, 1 + frames, 16), 77.0)
    proprio[:, ::8][:, : clip["proprio_BNS"].shape[1]] = clip["proprio_BNS"]
    mask = torch.ones(num, steps, 14)
    mask[..., 7:] = 0
    return Batch(
        video_BCTVHW=clip["clean_BCTVHW"],
        depth_BCTVHW=clip["clean_BCTVHW"],
        action_BKA=clip["action_BKA"],
        proprio_BPS=proprio,
        action_mask_BKA=mask,
        proprio_mask_BPS=torch.ones_like(proprio),
        executed_BKA=clip["action_BKA"],
    )


def noise_of(clip: dict[str, torch.Tensor]) -> Noise:
    other = clip_of(2, batch=len(clip["action_BKA"]), seed=7)
    return Noise(other["clean_BCTVHW"], other["action_BKA"], torch.zeros(1))


LEVELS = BlockLevels(torch.tensor([0.9, 0.2]), torch.tensor([[0.3, 0.8], [0.5, 0.6]]), torch.zeros(2, 6))
LEVELS = LEVELS._replace(action_BK=LEVELS.block_BN.repeat_interleave(3, dim=1))


@pytest.mark.parametrize("prediction", ["velocity", "clean"])
def test_losses_are_weighted_squares_of_frames_and_actions(prediction: str) -> None:
    network, clip = with_settings(video_prediction=prediction), clip_of(2, batch=2)
    batch, noise, text = batch_of(clip), noise_of(clip), text_of(network, batch=2)
    found = losses(network, batch, noise, LEVELS, text)
    sigma_BT = torch.tensor([[0.9, 0.3, 0.3, 0.8, 0.8], [0.2, 0.5, 0.5, 0.6, 0.6]])
    sigma = sigma_BT.view(2, 1, 5, 1, 1, 1)
    noisy = (1 - sigma) * batch.video_BCTVHW + sigma * noise.video_BCTVHW
    sigma_K = LEVELS.action_BK[..., None]
    action = (1 - sigma_K) * batch.action_BKA + sigma_K * noise.action_BKA
    times = ClipTimes(1000 * LEVELS.first_B, 1000 * LEVELS.block_BN)
    out = network(batch.video_BCTVHW, noisy, action, clip["proprio_BNS"], times, text)
    video_error = out.video_BCTVHW - (noise.video_BCTVHW - batch.video_BCTVHW)
    if prediction == "clean":
        video_error = video_error * sigma
    video = (video_error.square().mean((1, 3, 4, 5)) * loss_weight(sigma_BT)).mean()
    action_error = (out.action_BKA - (noise.action_BKA - batch.action_BKA))[..., :7]
    weighted = (action_error.square().mean(2) * loss_weight(LEVELS.action_BK)).mean()
    same(found, [video, weighted], atol=1e-4)


def test_a_masked_action_carries_no_loss() -> None:
    network, clip = network_of(), clip_of(2, batch=2)
    batch, text = batch_of(clip), text_of(network, batch=2)
    none = replace(batch, action_mask_BKA=torch.zeros_like(batch.action_mask_BKA))
    found = losses(network, none, noise_of(clip), LEVELS, text)
    assert found.action == 0
    assert found.video == losses(network, batch, noise_of(clip), LEVELS, text).video


def test_states_of_a_batch_are_those_at_the_start_of_each_block() -> None:
    network, clip = network_of(), clip_of(2, batch=2)
    batch, text = batch_of(clip), text_of(network, batch=2)
    changed = batch.proprio_BPS.clone()
    changed[:, 1:8] = -5
    changed[:, 9:] = -5
    same(
        losses(network, batch, noise_of(clip), LEVELS, text),
        losses(network, replace(batch, proprio_BPS=changed), noise_of(clip), LEVELS, text),
        atol=0,
    )


def test_levels_of_actions_count_only_where_the_model_has_them() -> None:
    clip = clip_of(2, batch=2)
    batch, noise = batch_of(clip), noise_of(clip)
    spread = LEVELS._replace(action_BK=torch.full((2, 6), 0.7))
    for independent in (False, True):
        network = with_settings(independent_levels=independent)
        text = text_of(network, batch=2)
        seen: list[ClipTimes] = []
        _record_times(network, seen)
        losses(network, batch, noise, spread, text)
        assert (seen[0].action_BK is not None) == independent


def _record_times(network: DreamZeroNetwork, seen: list[ClipTimes]) -> None:
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[4]))


def test_gradients_reach_every_weight() -> None:
    network, clip = network_of(replace(TINY, independent_levels=True)), clip_of(2, batch=2)
    network.requires_grad_(True)
    found = losses(network, batch_of(clip), noise_of(clip), LEVELS, text_of(network, batch=2))
    (found.video + found.action).backward()
    without = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []
