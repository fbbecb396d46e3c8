"""Which finisher a model gets: decided from its configuration and two settings, before any weights are loaded.

In: a `ModelConfig`, the policy's settings `camera_depth` and `warp`. Out: the finisher, and what provenance says of it.
Read next: `finisher.py`, which does the work; `xwam/serving/finisher.py` for what every other model gets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xwam.config import ModelConfig

if TYPE_CHECKING:
    from xwam.checkpoints.bundle import Bundle
    from xwam.serving.finisher import Finisher


class FinisherChoice(NamedTuple):
    """What is done after decoding with the codec.

    Attributes:
        model: The model.
        measured_depth: Whether depth builds on what the cameras measure.
        pixel_decoder: Whether the pixel decoder makes the images of static cameras.
    """

    model: ModelConfig
    measured_depth: bool
    pixel_decoder: bool

    def finisher(self, bundle: Bundle) -> Finisher:
        """Return the finisher; the decoder's weights go where the network's are.

        Raises:
            CheckpointError: If the decoder's weights do not fit.
        """
        from xwam.nano.finisher import MeasuredFinisher
        from xwam.nano.pixel_decoder import PixelDecoder
        from xwam.serving.finisher import PlainFinisher

        plain = PlainFinisher(self.model, bundle.codec)
        if not self.measured_depth:
            return plain
        if not self.pixel_decoder or bundle.decoder is None:
            return MeasuredFinisher(plain, None)
        return MeasuredFinisher(plain, PixelDecoder.from_weights(bundle.decoder).to(bundle.network.device))

    def provenance(self) -> dict[str, str]:
        """Return how predicted images and depth are made; nothing for a codec that leaves no choice."""
        if not self.model.codec.builds_on_first_frame:
            return {}
        images = (
            "static cameras: a learned decoder copies pixels of the current frame; wrist cameras: the current image "
            "reprojected to the predicted end-effector pose; the codec's output where a view measures no depth"
            if self.pixel_decoder
            else "the codec's output"
        )
        depth = (
            "built on the depth that the cameras measure now: the network, which sees no depth, predicts which "
            "measured surface a pixel will show; wrist cameras: measured depth reprojected to the predicted "
            "end-effector pose; the network's own where a view measures no depth"
            if self.measured_depth
            else "the network's own; measured depth is not used"
        )
        facts = {"predicted images": images}
        return facts if self.model.network.depth == "none" else facts | {"predicted depth": depth}


def choose(model: ModelConfig, *, camera_depth: bool, warp: bool) -> FinisherChoice:
    """Return the choice for a model.

    Args:
        model: The model.
        camera_depth: Whether measured depth may be used.
        warp: Whether the pixel decoder may be used.
    """
    measured = camera_depth and model.shows_what_it_saw
    return FinisherChoice(model, measured, warp and measured and model.codec.warp_widths is not None)
