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
    """What is done to the codec's output.

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
        """Return how images and depth are made, one sentence each; nothing where the codec leaves no choice."""
        if not self.model.codec.builds_on_first_frame:
            return {}
        images = (
            "drawn by the decoder beside the network, from the pixels that were seen; a wrist camera's are carried "
            "along with the hand; as the codec decodes them where a view has no measured depth"
            if self.pixel_decoder
            else "as the codec decodes them"
        )
        depth = (
            "the camera's where all views have it; the network, which sees no depth, predicts which measured surface a "
            "pixel will show, and where the hand carries its camera's"
            if self.measured_depth
            else "the network's own"
        )
        facts = {"predicted pictures": images}
        return facts if self.model.network.depth == "none" else facts | {"depth of the frame that was seen": depth}


def choose(model: ModelConfig, *, camera_depth: bool, warp: bool) -> FinisherChoice:
    """Return what is done for a model.

    Args:
        model: The model.
        camera_depth: Whether measured depth may be used.
        warp: Whether the pixel decoder may be used.
    """
    measured = camera_depth and model.shows_what_it_saw
    return FinisherChoice(model, measured, warp and measured and model.codec.warp_widths is not None)
