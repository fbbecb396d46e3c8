"""Video in training only, as a family of models.

In: a configuration. Out: what `xwam.families.Family` describes.
Read next: `baselines/joint_attention/family.py`, whose network it masks; `policy.py` for `--policy video_in_training`.

A training still draws and measures imagined futures: its network predicts them, and acting leaves them out.
"""

from __future__ import annotations

from collections.abc import Mapping

from baselines.joint_attention.family import JointAttentionFamily
from baselines.joint_attention.models import models_of
from xwam.config import ModelConfig


class VideoInTrainingFamily(JointAttentionFamily):
    """Two streams of tokens; actions read the present frame, and the video reads no actions."""

    name = "video_in_training"
    models: Mapping[str, ModelConfig] = models_of("video_in_training", actions_see_future=False)
