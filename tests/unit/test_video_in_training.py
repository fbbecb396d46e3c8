"""Acting without the future video: equal to the masked pass with it, for any future."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from baselines.video_in_training.acting import ActingNetwork, read_present
from baselines.video_in_training.policy import VideoInTrainingPlugin, VideoInTrainingPolicyConfig
from evalkit import testing
from evalkit.contracts.errors import BadConfig
from tests.doubles.networks import started
from tests.doubles.two_streams import TINY_STREAMS, two_streams_of
from xwam.flow import sampler
from xwam.flow.unipc import UniPCState
from xwam.serving.engine import Engine
from xwam.serving.seen import Seen

ACTS = replace(TINY_STREAMS, actions_see_future=False)


@pytest.mark.parametrize("nano", [False, True])
def test_acting_equals_the_masked_pass_with_video(nano: bool) -> None:
    config = replace(ACTS, video_prediction="clean", proprio_prediction="change") if nano else ACTS
    network = two_streams_of(config)
    state = started(network, steps=(6, 6))
    whole = sampler.run(network, state, depth=False)
    alone = replace(state, video=UniPCState(x=state.video.x[:, :, :1]))
    acting = ActingNetwork(network, read_present(network, state.seen_latent_BCVHW, state.text))
    acted = sampler.run(acting, alone, stop_after_actions=True, depth=False)
    torch.testing.assert_close(acted.action.x, whole.action.x, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(acted.proprio.x, whole.proprio.x, atol=2e-5, rtol=2e-5)


def test_actions_that_see_the_future_cannot_leave_it_out() -> None:
    network = two_streams_of()
    state = started(network)
    with pytest.raises(ValueError, match="cannot be left out"):
        read_present(network, state.seen_latent_BCVHW, state.text)


def test_acting_refuses_a_future_video() -> None:
    network = two_streams_of(ACTS)
    state = started(network)
    acting = ActingNetwork(network, read_present(network, state.seen_latent_BCVHW, state.text))
    with pytest.raises(ValueError, match="the present latent frame alone"):
        sampler.run(acting, state)


def test_the_policy_acts_as_the_whole_masked_model_does() -> None:
    plugin = VideoInTrainingPlugin("robosuite")
    config = VideoInTrainingPolicyConfig(checkpoint="random-nano")
    policy = plugin.make(config)
    whole = Engine(policy.engine.bundle, policy.engine.schedule)
    seen = Seen.of(testing.noise_request(policy.spec, 0, 0).observation)
    expected, _ = whole.act(whole.begin(seen, seed=7))
    got, _ = policy.engine.act(policy.engine.begin(seen, seed=7))
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_the_policy_says_that_it_predicts_nothing() -> None:
    plugin = VideoInTrainingPlugin("robosuite")
    config = VideoInTrainingPolicyConfig()
    spec = plugin.spec(config)
    assert (spec.predicts, spec.num_future_frames, spec.takes_actions) == ((), 0, False)
    assert "nothing is predicted" in plugin.provenance(config)["denoising"]


def test_settings_that_it_cannot_follow_are_refused() -> None:
    plugin = VideoInTrainingPlugin("robosuite")
    with pytest.raises(BadConfig, match=r"policy\.video_in_training\.guidance must be 0, got 2"):
        plugin.spec(VideoInTrainingPolicyConfig(guidance=2.0))
    with pytest.raises(BadConfig, match=r"policy\.video_in_training\.num_action_steps"):
        plugin.spec(VideoInTrainingPolicyConfig(num_action_steps=0))
    with pytest.raises(BadConfig, match=r"policy\.video_in_training\.checkpoint=random-nano is a model of robosuite"):
        VideoInTrainingPlugin("robocasa").spec(VideoInTrainingPolicyConfig())
