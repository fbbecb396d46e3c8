"""Finishers: which one a model gets, and that the engine leaves all of its output to it.

Read next: `xwam/serving/finisher.py`, `xwam/nano/choice.py`.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evalkit.contracts.types import Prediction
from tests.doubles.checkpoints import MODEL
from tests.doubles.xwam import request_of
from xwam.checkpoints.fresh import fresh_bundle
from xwam.checkpoints.metadata import CheckpointError
from xwam.config import NANO
from xwam.flow.sampler import Latents, Schedule
from xwam.nano.choice import choose
from xwam.nano.finisher import MeasuredFinisher
from xwam.serving.engine import Engine
from xwam.serving.finisher import PlainFinisher
from xwam.serving.seen import Seen

WITH_DECODER = replace(NANO, codec=replace(NANO.codec, warp_widths=(8, 8, 8, 8)))


@pytest.mark.parametrize(
    ("model", "camera_depth", "warp", "measured", "decoder"),
    [
        (NANO, True, True, True, False),
        (WITH_DECODER, True, True, True, True),
        (WITH_DECODER, True, False, True, False),
        (WITH_DECODER, False, True, False, False),
        (replace(WITH_DECODER, blind=True), True, True, False, False),
        (MODEL, True, True, False, False),
    ],
)
def test_the_choice_follows_model_and_settings(
    model: Any, camera_depth: bool, warp: bool, measured: bool, decoder: bool
) -> None:
    choice = choose(model, camera_depth=camera_depth, warp=warp)
    assert (choice.measured_depth, choice.pixel_decoder) == (measured, decoder)


def test_provenance_tells_only_what_nano_adds() -> None:
    assert choose(MODEL, camera_depth=True, warp=True).provenance() == {}
    plain = choose(NANO, camera_depth=False, warp=False).provenance()
    assert plain == {
        "predicted images": "the codec's output",
        "predicted depth": "the network's own; measured depth is not used",
    }


def test_without_measured_depth_the_plain_finisher_is_built() -> None:
    bundle = fresh_bundle(NANO, seed=0)
    assert isinstance(choose(NANO, camera_depth=False, warp=True).finisher(bundle), PlainFinisher)
    assert isinstance(choose(NANO, camera_depth=True, warp=True).finisher(bundle), MeasuredFinisher)


def test_a_pixel_decoder_of_two_arms_is_refused() -> None:
    two_arms = replace(NANO, name="two", arms=("left", "right"))
    plain, decoder = PlainFinisher(two_arms, fresh_bundle(NANO, seed=0).codec), object()
    with pytest.raises(CheckpointError, match="follows the end effector of one arm, but the model has the arms left"):
        MeasuredFinisher(plain, decoder)  # type: ignore[arg-type]


class Recording:
    """A finisher that keeps its inputs and returns zeros."""

    def __init__(self) -> None:
        self.inputs: list[Any] = []

    def prepare(self, seen: Seen, seen_BCVHW: Any) -> str:
        self.inputs.append((seen, tuple(seen_BCVHW.shape)))
        return "context"

    def finish(self, latents: Latents, states: np.ndarray, context: str) -> Prediction:
        self.inputs.append((latents, states, context))
        return Prediction(rgb=np.zeros(1, np.uint8), depth=None, proprio=None)


def test_the_engine_leaves_predictions_to_its_finisher() -> None:
    finisher = Recording()
    engine = Engine(fresh_bundle(NANO, seed=0), Schedule(num_video_steps=1, num_action_steps=1), finisher)
    seen = Seen.of(request_of().observation)
    prediction = engine.imagine(engine.act(engine.begin(seen, seed=0))[1])
    assert prediction.rgb.tolist() == [0]
    (first, shape), (latents, states, context) = finisher.inputs
    assert first is seen
    assert shape == (1, 3, 3, *NANO.image_hw_px)
    assert context == "context"
    assert latents.video_BCTVHW.shape == latents.depth_BCTVHW.shape == (1, *NANO.latent_shape)
    assert states.shape == (NANO.num_future_frames, 16)
