"""The training loss: velocities of video, actions and states, and clean depth latents.

In: clean tensors of a batch, their noise, their noise levels. Out: losses by name and the sum of equation 6.
Read next: `noise.py` for how the levels are drawn.

Letters: B batch, C latent channels, T latent frames, V views, H W latent rows and columns, K actions, P states,
A numbers in an action, S numbers in a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from xwam.config import NUM_TRAIN_TIMESTEPS
from xwam.flow.noise import NoiseLevels
from xwam.network.transformer import TextContext, XwamNetwork, with_clean_actions


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Clean, normalised training samples.

    Attributes:
        video_BCTVHW: Latents of the RGB video; the first latent frame is the present.
        depth_BCTVHW: Latents of the depth video.
        action_BKA: Actions.
        proprio_BPS: States; the first is the present one.
        action_mask_BKA: 1 where an action carries loss; 0 for absent arms.
        proprio_mask_BPS: The same for states.
        executed_BKA: Executed commands, whose outcome images and states show; equal to the actions unless a
            disturbance changed them. Samples with clean actions get these.
    """

    video_BCTVHW: Tensor
    depth_BCTVHW: Tensor
    action_BKA: Tensor
    proprio_BPS: Tensor
    action_mask_BKA: Tensor
    proprio_mask_BPS: Tensor
    executed_BKA: Tensor


class Noise(NamedTuple):
    """Standard normal tensors for one batch."""

    video_BCTVHW: Tensor
    action_BKA: Tensor
    proprio_BPS: Tensor


class Losses(NamedTuple):
    """The four terms of equation 6, and the release's optional loss on the spectrum of actions."""

    video: Tensor
    action: Tensor
    proprio: Tensor
    depth: Tensor
    dct: Tensor

    @property
    def total(self) -> Tensor:
        """Return the sum of the terms of equation 6, weighted equally."""
        return self.video + self.action + self.proprio + self.depth


def losses(
    network: XwamNetwork,
    batch: Batch,
    noise: Noise,
    levels: NoiseLevels,
    text: TextContext,
    *,
    spectrum: bool = True,
    num_clean: Sequence[int] = (),
) -> Losses:
    """Return the losses of one batch.

    The present (first latent frame, first state) is clean and carries no loss. Samples drawn with clean actions get the
    executed ones; their actions and states carry no loss. A network that predicts clean video or changes of states is
    trained on these, not on velocities. Depth is regressed at every latent frame if the network predicts it clean.

    Args:
        network: The model.
        batch: Clean samples.
        noise: The noise to mix in.
        levels: Noise levels after the shift.
        text: The prompts; the empty one for a dropped prompt.
        spectrum: Whether to compute the loss on the spectrum of actions; else it is 0.
        num_clean: First actions of each sample that are clean and carry no loss, as those that a robot executes while
            the model computes; empty for none.
    """
    clean_video = _with_depth(network, batch)
    video = mix(clean_video, noise.video_BCTVHW, levels.sigma_video_B)
    channels = batch.video_BCTVHW.shape[1]
    video = torch.cat([_first_clean(video[:, :channels], clean_video[:, :channels]), video[:, channels:]], dim=1)
    action = mix(batch.action_BKA, noise.action_BKA, levels.sigma_action_B)
    prefix_BK1 = _first(num_clean, action)
    action = torch.where(levels.clean_action_B[:, None, None] | prefix_BK1, batch.executed_BKA, action)
    proprio = mix(batch.proprio_BPS, noise.proprio_BPS, levels.sigma_action_B)
    proprio = torch.cat([batch.proprio_BPS[:, :1], proprio[:, 1:]], dim=1)
    geometry = network.geometry(video, action.shape[1], proprio.shape[1])
    t_video, t_action = (sigma * NUM_TRAIN_TIMESTEPS for sigma in levels[:2])
    times = network.timesteps(t_video, t_action, geometry)
    if any(num_clean):
        times = with_clean_actions(times, geometry, num_clean)
    out = network(video, action, proprio, times, text, depth=network.config.depth == "interleaved")
    acting = (~levels.clean_action_B).to(action)[:, None, None]
    error = out.video_BCTVHW - (noise.video_BCTVHW - clean_video)
    proprio_error = out.proprio_BPS - (noise.proprio_BPS - batch.proprio_BPS)
    if network.config.video_prediction == "clean":  # the error of the clean latents is sigma times that of velocities
        error = error * levels.sigma_video_B.view(-1, 1, 1, 1, 1, 1).to(error)
    if network.config.proprio_prediction == "change":
        proprio_error = proprio_error * levels.sigma_action_B.view(-1, 1, 1).to(error)
    action_error = out.action_BKA - (noise.action_BKA - batch.action_BKA)
    action_mask = batch.action_mask_BKA * acting * ~prefix_BK1
    return Losses(
        video=_mean_square(error[:, :channels, 1:]),
        action=masked_mean_square(action_error, action_mask),
        proprio=masked_mean_square(proprio_error[:, 1:], batch.proprio_mask_BPS[:, 1:] * acting),
        depth=_depth_loss(out.depth_BCTVHW, error[:, channels:], batch.depth_BCTVHW),
        dct=mean_spectrum(action_error, action_mask) if spectrum else action_error.new_zeros(()),
    )


def _first(num_clean: Sequence[int], action_BKA: Tensor) -> Tensor:
    """Return whether each action is one of the first clean ones of its sample, B,K,1."""
    index_K = torch.arange(action_BKA.shape[1], device=action_BKA.device)
    counts_B = torch.tensor(num_clean or [0] * len(action_BKA), device=action_BKA.device)
    return (index_K < counts_B[:, None])[..., None]


def mix(clean: Tensor, noise: Tensor, sigma_B: Tensor) -> Tensor:
    """Return (1 - sigma) clean + sigma noise.

    Example:
        >>> mix(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0.25])).tolist()
        [[0.25, 0.25]]
    """
    sigma = sigma_B.view(-1, *[1] * (clean.dim() - 1)).to(clean)
    return (1 - sigma) * clean + sigma * noise


def masked_mean_square(error: Tensor, mask: Tensor) -> Tensor:
    """Return the mean square where the mask is 1; 0 if it is 0 everywhere.

    Example:
        >>> masked_mean_square(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])).item()
        9.0
    """
    mask = mask.expand_as(error)
    return (error.square() * mask).sum() / mask.sum().clamp(min=1)


def mean_spectrum(error_BKA: Tensor, mask_BKA: Tensor) -> Tensor:
    """Return the mean magnitude of the errors' Fourier coefficients over the actions of a chunk (not normalised).

    As the release's `dct_loss` (runners/xwam_runner.py, commit 72cfb86), a Fourier transform in spite of its name: only
    chunks all of whose actions carry loss count, and of these every number, those of an absent arm too. 0 if there is
    no such chunk.

    Example:
        >>> mean_spectrum(torch.ones(1, 4, 1), torch.ones(1, 4, 1)).item()  # coefficients 4, 0, 0
        1.3333333730697632
    """
    whole_B = mask_BKA.expand_as(error_BKA).any(dim=-1).all(dim=1)
    spectrum = torch.fft.rfft(error_BKA, dim=1).abs()[whole_B]
    return spectrum.mean() if spectrum.numel() else spectrum.sum()


def _with_depth(network: XwamNetwork, batch: Batch) -> Tensor:
    """Return the denoised video; with sequence and channel concatenation, the channels of depth follow."""
    if network.config.depth in ("sequence", "channel"):
        return torch.cat([batch.video_BCTVHW, batch.depth_BCTVHW], dim=1)
    return batch.video_BCTVHW


def _first_clean(noisy_BCTVHW: Tensor, clean_BCTVHW: Tensor) -> Tensor:
    return torch.cat([clean_BCTVHW[:, :, :1], noisy_BCTVHW[:, :, 1:]], dim=2)


def _mean_square(error: Tensor) -> Tensor:
    return error.square().mean() if error.numel() else error.sum()


def _depth_loss(predicted: Tensor | None, denoised_error: Tensor, depth_BCTVHW: Tensor) -> Tensor:
    """Return the loss of the depth branch, or of denoised depth; 0 without depth."""
    return _mean_square(denoised_error) if predicted is None else _mean_square(predicted - depth_BCTVHW)
