"""The five uses of one small UWM, trained for minutes in a world whose dynamics are known.

In: a point that actions push, drawn as images. Out: errors against what truly follows, next to those of chance.
Read next: `tests/doubles/point_world.py`.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from baselines.uwm.family import UwmFamily
from baselines.uwm.levels import draw_uwm_levels
from baselines.uwm.network import UwmNetwork
from baselines.uwm.objective import UwmObjective
from baselines.uwm.recipes import RECIPES
from baselines.uwm.sampling import Groups, begin, run
from baselines.uwm.uses import USES
from tests.doubles import point_world
from tests.doubles.point_world import GO, WANDER, Clips, QuarterPixels
from xwam.checkpoints.fresh import init_weights
from xwam.codecs.codec import decode_views
from xwam.flow.losses import Noise
from xwam.text.encoders import HashedText
from xwam.text.tokens import TextTokens
from xwam.training.batches import Draws
from xwam.training.optim import optimizers_of, set_rate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

NUM_STEPS, BATCH, CASES, PASSES = 2000, 128, 256, 10

CHANGES = {"num_steps": NUM_STEPS, "warmup_steps": 50, "learning_rate": 3e-3, "clean_action_frac": 0.4}
"""To the recipe: a tiny network learns faster, and two of five uses have something given."""

CODEC, TEXT = QuarterPixels(), HashedText(num_tokens=point_world.NETWORK.text_len, width=point_world.NETWORK.text_width)


def prompts(expert: np.ndarray) -> TextTokens:
    return TextTokens.cat([TEXT.encode(GO if each else WANDER) for each in expert])


@pytest.fixture(scope="module")
def network() -> UwmNetwork:
    """A network after the training of `uwm-nano` on new clips in every step."""
    family, rng, generator = UwmFamily(), np.random.default_rng(0), torch.Generator().manual_seed(0)
    network = init_weights(family.build(point_world.NETWORK), 0)
    recipe = replace(RECIPES["uwm-nano"], **CHANGES)  # type: ignore[arg-type]
    objective = UwmObjective(network, recipe)
    optimizers = optimizers_of(objective, recipe)
    for step in range(NUM_STEPS):
        clips = point_world.clips(BATCH, rng)
        batch = clips.batch(CODEC)
        levels = draw_uwm_levels(BATCH, given_frac=recipe.clean_action_frac, generator=generator)
        noise = Noise(*_noise(batch.video_BCTVHW, batch.action_BKA, batch.proprio_BPS, generator=generator))
        set_rate(optimizers, step, recipe)
        objective(batch, Draws(noise=noise, levels=levels, text=prompts(clips.expert)))["total"].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return network.eval().requires_grad_(False)


def _noise(*like: torch.Tensor, generator: torch.Generator) -> Groups:
    return Groups(*(torch.randn(each.shape, generator=generator) for each in like))


def sampled(network: UwmNetwork, use: str, clips: Clips) -> Groups:
    batch = clips.batch(CODEC)
    known = Groups(batch.video_BCTVHW, batch.action_BKA, batch.proprio_BPS)
    state = begin(
        USES[use],
        PASSES,
        _noise(*known, generator=torch.Generator().manual_seed(5)),
        present=(known.video_BCTVHW[:, :, 0], known.proprio_BPS[:, 0]),
        text=network.encode_text(prompts(clips.expert)),
        given=known,
    )
    return run(network, state).values


def cases(*, expert: bool) -> Clips:
    return point_world.clips(CASES, np.random.default_rng(99), expert=expert)


def shown(values: Groups) -> np.ndarray:
    """Return where the imagined last frame shows the point."""
    return point_world.found(decode_views(CODEC, values.video_BCTVHW))


def rms(error: np.ndarray) -> float:
    return float(np.sqrt((error**2).mean()))


def beats(error: float, chance: float, margin: float) -> None:
    """Check that an error is at most a share of that of chance; print both."""
    print(f"error {error:.3f}, chance {chance:.3f}, ratio {error / chance:.3f} (at most {margin})")
    assert error <= margin * chance


def test_forward_dynamics_shows_what_actions_do(network: UwmNetwork) -> None:
    """Chance: the point stays, which is the best guess without the actions."""
    clips = cases(expert=False)
    end = clips.position[:, -1]
    beats(rms(shown(sampled(network, "forward_dynamics", clips)) - end), rms(clips.position[:, 0] - end), 0.5)


def test_inverse_dynamics_finds_the_actions(network: UwmNetwork) -> None:
    """Chance: no action, which is the mean."""
    clips = cases(expert=False)
    found = point_world.actions_of(sampled(network, "inverse_dynamics", clips).action_BKA)
    beats(rms(found.mean(1) - clips.action.mean(1)), rms(clips.action.mean(1)), 0.4)


@pytest.mark.parametrize("use", ["policy", "joint"])
def test_both_policies_reach_the_goal(network: UwmNetwork, use: str) -> None:
    """Chance: random actions. Ground truth: where the expert ends."""
    clips, random = cases(expert=True), cases(expert=False)
    acted = point_world.actions_of(sampled(network, use, clips).action_BKA)
    start, end = clips.position[:, 0], clips.position[:, -1]
    ends = [point_world.outcome(start, action) for action in (acted, random.action)]
    beats(rms(ends[0] - end), rms(ends[1] - end), 0.2)


def test_joint_images_show_the_outcome_of_its_own_actions(network: UwmNetwork) -> None:
    clips = cases(expert=True)
    values = sampled(network, "joint", clips)
    start = clips.position[:, 0]
    end = point_world.outcome(start, point_world.actions_of(values.action_BKA))
    beats(rms(shown(values) - end), rms(start - end), 0.3)


def test_video_alone_shows_the_goal_that_is_reached(network: UwmNetwork) -> None:
    clips = cases(expert=True)
    start, end = clips.position[:, 0], clips.position[:, -1]
    beats(rms(shown(sampled(network, "video", clips)) - end), rms(start - end), 0.3)
