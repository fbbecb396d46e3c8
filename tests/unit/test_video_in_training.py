"""Acting without the future video: equal to the masked pass with it, for any future."""

from dataclasses import replace

import pytest
import torch

from baselines.video_in_training.acting import ActingNetwork, read_present
from tests.doubles.networks import started
from tests.doubles.two_streams import TINY_STREAMS, two_streams_of
from xwam.flow import sampler
from xwam.flow.unipc import UniPCState

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
