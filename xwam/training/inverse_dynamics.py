"""How well a model infers actions from the frames and states that they led to, on recorded clips.

In: a data set, a checkpoint whose family infers actions. Out: errors next to those of the mean action.
Read next: `xwam/cli/inverse_dynamics.py` for the verb; `baselines/uwm/engine.py`, a family that does it.

Letters: B clips, K actions, A numbers in an action.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import Tensor

from evalkit.contracts.types import ARM_ACTION, GRIPPER, ROTVEC_RAD, TRANSLATION
from evalkit.dataset.layout import Scan
from xwam.checkpoints.bundle import Bundle
from xwam.families import family_of, names
from xwam.flow.losses import Batch
from xwam.network.transformer import TextContext
from xwam.serving.imagine import read_prompts
from xwam.training.batches import Encoder
from xwam.training.check_data import check_fit
from xwam.training.clips import ClipDataset
from xwam.training.recipes import Recipe

CLIPS_PER_PASS = 8

MIN_EPISODES = 10
"""Fewest episodes to resample: intervals of fewer are too narrow."""

OnProgress = Callable[[int, int], None]


@runtime_checkable
class InfersActions(Protocol):
    """A family whose models infer actions from what followed them."""

    def infer_actions(
        self, bundle: Bundle, batch: Batch, text: TextContext, *, num_steps: int | None, seed: int
    ) -> Tensor:
        """Return the actions that lead from the first frame and state of each clip to the others, B,K,A, normalised.

        Args:
            bundle: The model.
            batch: Clean latents and states; its actions are not read.
            text: The prompts.
            num_steps: Denoising steps; None for the model's own.
            seed: Fixes all of the noise.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ActionError:
    """Errors of some numbers of the actions, in the units of the network (the data's bounds are -1 and 1).

    Attributes:
        rms: Root mean square error of the inferred actions.
        rms_of_mean: That of the mean recorded action, the best guess without looking.
        unexplained: Ratio of both mean squares: 0 for the recorded actions, 1 for the mean action.
        interval: 95 % interval of `unexplained`, by resampling episodes; None below `MIN_EPISODES`.
        num_episodes: Episodes behind it.
    """

    rms: float
    rms_of_mean: float
    unexplained: float
    interval: tuple[float, float] | None
    num_episodes: int


class Inferred(NamedTuple):
    """The actions of clips, N,K,A each, and the episode of each clip; masks are 1 where an action counts."""

    inferred_NKA: np.ndarray
    recorded_NKA: np.ndarray
    mask_NKA: np.ndarray
    episodes: list[str]


def check_infers(bundle: Bundle) -> InfersActions:
    """Return the family of a model, which infers actions.

    Raises:
        ValueError: If it does not.
    """
    family = family_of(bundle.model.family)
    if not isinstance(family, InfersActions):
        able = [name for name in names() if isinstance(family_of(name), InfersActions)]
        raise ValueError(
            f"{bundle.model.name} cannot infer actions: its family '{bundle.model.family}' was not trained to; those "
            f"that were: {', '.join(able)}."
        )
    return family


def clips_of(root: Path, scanned: Scan, bundle: Bundle, recipe: Recipe) -> ClipDataset:
    """Return the whole clips of a data set, cropped as in the training.

    Raises:
        ValueError: If data and model do not fit, or no episode is as long as a clip.
    """
    check_fit(root, scanned, bundle.model)
    clips = ClipDataset.for_model(
        root,
        scanned.lengths,
        bundle.model,
        crop_frac=recipe.crop_frac,
        past_end="leave_out",
        augmentation=None,
        exact_depth=recipe.exact_depth,
    )
    if not len(clips):
        raise ValueError(f"{root} holds no episode longer than a clip of {clips.shape.span} steps.")
    return clips


def infer(
    clips: ClipDataset,
    bundle: Bundle,
    recipe: Recipe,
    *,
    num_clips: int,
    num_steps: int | None = None,
    seed: int = 0,
    on_progress: OnProgress = lambda done, total: None,
) -> Inferred:
    """Return inferred and recorded actions of clips that lie evenly in the data set.

    Recorded are the executed actions, whose outcome the frames show; steps that training trusts count.

    Raises:
        ValueError: If the model's family does not infer actions.
        BrokenEpisode: If a video is broken.
    """
    family, encoder = check_infers(bundle), Encoder(bundle, recipe, bundle.network.device)
    chosen = np.unique(np.linspace(0, len(clips) - 1, min(num_clips, len(clips))).round().astype(int)).tolist()
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for first in range(0, len(chosen), CLIPS_PER_PASS):
        samples = [clips[index] for index in chosen[first : first + CLIPS_PER_PASS]]
        batch = encoder.batch(samples)
        text = read_prompts(bundle, [sample.instruction for sample in samples])
        actions = family.infer_actions(bundle, batch, text, num_steps=num_steps, seed=seed + first)
        found.append((actions.cpu().float(), batch.executed_BKA.cpu(), batch.action_mask_BKA.cpu()))
        on_progress(min(first + CLIPS_PER_PASS, len(chosen)), len(chosen))
    inferred, recorded, mask = (torch.cat(parts).double().numpy() for parts in zip(*found, strict=True))
    return Inferred(inferred, recorded, np.broadcast_to(mask, recorded.shape), [clips.where(i)[0] for i in chosen])


def errors_of(found: Inferred) -> dict[str, ActionError]:
    """Return the errors of all numbers of the actions, and of translation, rotation and gripper alone."""
    parts = {"all": slice(0, 7), "translation": TRANSLATION, "rotation": ROTVEC_RAD, "gripper": slice(GRIPPER, 7)}
    return {name: _error(found, _columns(columns)) for name, columns in parts.items()}


def _columns(of_arm: slice) -> list[int]:
    return [index for arm in ARM_ACTION.values() for index in range(arm.start, arm.stop)[of_arm]]


def _error(found: Inferred, columns: list[int]) -> ActionError:
    inferred, recorded, mask = (values[..., columns] for values in found[:3])
    counts = mask.sum(axis=(0, 1))
    mean = (recorded * mask).sum(axis=(0, 1)) / np.maximum(counts, 1)
    squares = [((guess - recorded) ** 2 * mask).sum(axis=(1, 2)) for guess in (inferred, mean)]
    own, of_mean = (_by_episode(values, found.episodes) for values in squares)
    total = max(float(mask.sum()), 1.0)
    return ActionError(
        rms=float(np.sqrt(own.sum() / total)),
        rms_of_mean=float(np.sqrt(of_mean.sum() / total)),
        unexplained=float(own.sum() / of_mean.sum()) if of_mean.any() else float("nan"),
        interval=_interval(own, of_mean) if len(own) >= MIN_EPISODES else None,
        num_episodes=len(own),
    )


def _interval(own: np.ndarray, of_mean: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of the ratio of two sums over episodes."""

    def ratio(numerators: np.ndarray, denominators: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(numerators.sum(axis) / np.maximum(denominators.sum(axis), 1e-12))

    found = bootstrap((own, of_mean), ratio, paired=True, method="percentile", n_resamples=2000, rng=0)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _by_episode(values: np.ndarray, episodes: list[str]) -> np.ndarray:
    return np.array([values[[at == name for at in episodes]].sum() for name in dict.fromkeys(episodes)])


def rows(errors: Mapping[str, ActionError]) -> Iterator[str]:
    """Yield one line for each part of the actions, below a heading."""
    yield f"{'':<12}{'rms error':>10}{'mean action':>13}  unexplained (95 % interval)"
    for name, error in errors.items():
        interval = "" if error.interval is None else f" ({error.interval[0]:.3f} to {error.interval[1]:.3f})"
        yield f"{name:<12}{error.rms:>10.4f}{error.rms_of_mean:>13.4f}  {error.unexplained:.3f}{interval}"


def to_json(errors: Mapping[str, ActionError], **about: object) -> str:
    """Return the errors as JSON, with facts about them."""
    return json.dumps({**about, "errors": {name: asdict(error) for name, error in errors.items()}}, indent=1) + "\n"
