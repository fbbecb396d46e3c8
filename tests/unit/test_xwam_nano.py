"""The shipped weights: their header, and predictions that follow given actions.

In: `xwam/nano/weights/nano.safetensors`, a grey scene. Out: a verdict. How well they act and imagine: results/nano.
Read next: `xwam/nano/weights/README.md`.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.doubles.known import known
from tests.doubles.xwam import request_of
from xwam.checkpoints.hub import locate
from xwam.checkpoints.metadata import read_model, read_notes
from xwam.policy import XwamPlugin, XwamPolicy, XwamPolicyConfig

PLUGIN, CONFIG = XwamPlugin(), XwamPolicyConfig()


@pytest.fixture(scope="module")
def policy() -> XwamPolicy:
    return PLUGIN.make(CONFIG)


def asked(**changes: Any) -> Any:
    """Return a request before a grey table, with the end effector above it."""
    request = request_of(num_predicted_frames=8, instruction="Lift the red cube off the table.")
    K = np.array([[154.5, 0.0, 63.5], [0.0, 154.5, 63.5], [0.0, 0.0, 1.0]])
    seen = replace(
        request.observation, rgb=np.full_like(request.observation.rgb, 128), intrinsics=np.tile(K, (3, 1, 1))
    )
    seen.proprio[:8] = [0.5, 0.0, 0.1, 0.0, 0.7071, 0.7071, 0.0, 1.0]
    return replace(request, observation=seen, **changes)


def test_they_are_small_and_say_how_they_were_made() -> None:
    path = locate("nano")
    assert path.stat().st_size <= 25e6
    assert {"recipe", "command", "steps", "data_sha256", "decoder_command"} <= set(read_notes(path))
    assert read_model(path).codec.warp_widths is not None
    assert PLUGIN.provenance(CONFIG)["predicted images"].startswith("static cameras: a learned decoder")


def test_the_imagined_hand_goes_where_given_actions_take_it(policy: XwamPolicy) -> None:
    ends = []
    for up in (-0.6, 0.6):
        actions = np.zeros((32, 14), np.float32)
        actions[:, 2], actions[:, 6] = up, 1.0
        (reply,) = policy.infer([asked(given_actions=actions)])
        ends.append(known(known(reply.prediction)().proprio)[-1, 2])
    assert ends[1] - ends[0] > 0.03


def test_what_it_draws_is_made_of_what_it_saw(policy: XwamPolicy) -> None:
    (reply,) = policy.infer([asked()])
    prediction = known(reply.prediction)()
    assert (prediction.rgb[:, :2] == 128).all()  # wherever pixels come from, they are grey
    assert known(prediction.depth).min() > 0
