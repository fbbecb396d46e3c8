"""Recipes: every number of a training, by name, and how to change one.

In: a name, `key=value` overrides. Out: a frozen `Recipe`.
Read next: `trainer.py`, which follows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, cast

from omegaconf import OmegaConf
from pydantic import Field, TypeAdapter, ValidationError

from evalkit.contracts.overrides import apply_overrides, leaf_keys
from xwam.config import DepthMode
from xwam.flow.noise import CLEAN_ACTION_FRAC, NoiseMode
from xwam.training.augment import Augmentation
from xwam.training.clips import PastEnd

OptimizerKind = Literal["adamw", "muon"]


class RecipeError(ValueError):
    """A recipe that nobody wrote, or a change that it does not know."""


Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained.

    Attributes:
        name: Shown in notes.
        seed: Fixes fresh weights, the order of clips and every draw; with the same machine, the result.
        num_steps: Steps of the optimizer.
        batch_size: Clips in a step, over all devices.
        micro_batch: Clips in one forward pass of one device; the rest is accumulated.
        noise_draws: Noise levels that each clip is seen at in a step; reading and encoding are done once.
        optimizer: `muon` turns the updates of the blocks' matrices; everything else is AdamW's either way.
        learning_rate: At its peak.
        warmup_steps: Linear from 0; cosine to `final_lr_frac` afterwards.
        final_lr_frac: Share of the peak that is left at the end.
        weight_decay: Decoupled.
        betas: Of AdamW.
        clip_norm: Largest norm of a gradient.
        ema_decay: Of the averaged weights, which are the ones to keep; 0 for none.
        precision: `bf16` for matrices in bfloat16, weights and optimizer in float32.
        checkpointing: Recompute activations of each block instead of keeping them.
        compile: Compile the blocks; minutes at the start, faster steps afterwards. On a CPU it needs a C++ compiler.
        noise: How noise levels are drawn.
        clean_action_frac: The paper's p.
        start_frac: Share of samples at the levels where an inference begins; not in the paper.
        text_drop: Share of samples whose prompt is empty.
        weight_action: Lambda of the actions (equation 6).
        weight_proprio: Lambda of the states.
        weight_depth: Lambda of depth.
        train_only: What the names of the weights begin with that are trained, for example `["head.", "extra_"]`; the
            others stay as they are. Empty for all.
        blind: Show grey in place of pictures: the control that tells what a task owes to its cameras.
        depth: Other way with depth than the model's own; None to keep it.
        crop_frac: Share of rows and columns that is kept.
        augmentation: Colour jitter and moving crops; None for neither.
        past_end: What to do with clips that reach beyond an episode.
        exact_depth: Whether depth comes from millimetres rather than from 8 bits.
        encode_once: Keep latents beside the data instead of encoding clips each time; needs pictures that stay as
            they are.
        least_action: Smallest range that counts as 1 in an action; keeps what hardly moves from being blown up.
        validation_share: Share of episodes held out.
        validate_every: Steps between validations; 0 for none.
        validation_clips: Clips of a validation.
        imagined_clips: Clips of a validation that are imagined from their first frame, judged and drawn; 0 for none.
        imagined_steps: Denoising steps of video and of actions there.
        save_every: Steps between states from which a killed run goes on.
        workers: Processes that read clips on each device; 0 to read in between.
    """

    name: str
    seed: Natural = 0
    num_steps: Count
    batch_size: Count
    micro_batch: Count
    noise_draws: Count = 1
    optimizer: OptimizerKind = "adamw"
    learning_rate: Amount
    warmup_steps: Natural
    final_lr_frac: Share = 0.0
    weight_decay: Amount = 0.01
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    clip_norm: Positive = 1.0
    ema_decay: Decay = 0.0
    precision: Literal["no", "bf16"] = "bf16"
    checkpointing: bool = True
    compile: bool = False
    noise: NoiseMode = "ans"
    clean_action_frac: Share = CLEAN_ACTION_FRAC
    start_frac: Share = 0.0
    text_drop: Share = 0.1
    weight_action: Amount = 1.0
    weight_proprio: Amount = 1.0
    weight_depth: Amount = 1.0
    train_only: tuple[Name, ...] = ()
    blind: bool = False
    depth: DepthMode | None = None
    crop_frac: Part = 0.95
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    past_end: PastEnd = "leave_out"
    exact_depth: bool = False
    encode_once: bool = False
    least_action: Amount = 0.0
    validation_share: Share = 0.02
    validate_every: Natural = 1000
    validation_clips: Count = 64
    imagined_clips: Natural = 4
    imagined_steps: tuple[Count, Count] = (50, 10)
    save_every: Count = 1000
    workers: Natural = 8

    def __post_init__(self) -> None:
        if self.batch_size % self.micro_batch:
            raise RecipeError(f"batch_size {self.batch_size} must be a multiple of micro_batch {self.micro_batch}.")
        if self.clean_action_frac + self.start_frac > 1:
            raise RecipeError(
                f"clean_action_frac {self.clean_action_frac} and start_frac {self.start_frac} are shares of one whole."
            )
        if self.warmup_steps > self.num_steps:
            raise RecipeError(f"warmup_steps {self.warmup_steps} must lie in 0..{self.num_steps} (num_steps).")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `from_json` gives the same recipe back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """Return the recipe that `to_json` wrote.

        Raises:
            RecipeError: For a value that the setting's type does not allow.
        """
        try:
            return TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            if "error" in first.get("ctx", {}):
                raise first["ctx"]["error"] from error
            name = ".".join(map(str, first["loc"]))
            raise RecipeError(f"{name}: {first['msg']}, got {json.dumps(first['input'])}.") from error


PRETRAINING = Recipe(
    name="pretraining", num_steps=40_000, batch_size=2048, micro_batch=8, learning_rate=1e-4, warmup_steps=1000
)
"""The paper's section B.2: 256 devices of 8 clips each."""

FINETUNING = Recipe(
    name="robocasa", num_steps=20_000, batch_size=128, micro_batch=4, learning_rate=3e-5, warmup_steps=1000
)
"""The paper's fine-tuning on either benchmark: 32 devices of 4 clips each."""

NANO = Recipe(
    name="nano",
    num_steps=20_000,
    batch_size=16,
    micro_batch=16,
    optimizer="muon",
    learning_rate=1e-3,
    warmup_steps=200,
    final_lr_frac=0.02,
    ema_decay=0.999,
    precision="no",
    checkpointing=False,
    clean_action_frac=0.25,
    start_frac=0.25,
    weight_action=3.0,
    weight_depth=4.0,
    crop_frac=1.0,
    augmentation=None,
    past_end="hold",
    exact_depth=True,
    encode_once=True,
    imagined_steps=(10, 4),
    least_action=0.2,
    save_every=250,
    workers=0,
)
"""The embedded default on one CPU core; short of steps before it is short of data."""


def _ablations() -> list[Recipe]:
    """Return the paper's table 4: fine-tuning from Wan2.2 itself, one choice changed."""
    depths: tuple[DepthMode, ...] = ("none", "sequence", "channel")
    noises: tuple[NoiseMode, ...] = ("decoupled", "sync")
    changed = [replace(FINETUNING, name=f"ablation-depth-{depth}", depth=depth) for depth in depths]
    return changed + [replace(FINETUNING, name=f"ablation-noise-{noise}", noise=noise) for noise in noises]


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        PRETRAINING,
        FINETUNING,
        replace(FINETUNING, name="robotwin"),
        replace(FINETUNING, name="robocasa-released", learning_rate=1e-5, warmup_steps=200),
        replace(FINETUNING, name="robotwin-released", learning_rate=1e-5, warmup_steps=400, num_steps=40_000),
        replace(FINETUNING, name="ablation-base"),
        *_ablations(),
        NANO,
    )
}
"""All recipes by name; `-released` are the authors' configuration files where they differ from the paper."""


def recipe_of(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe with Hydra overrides such as `num_steps=200` applied.

    Raises:
        RecipeError: For a recipe that does not exist, or a value of another type.
        EvalkitError: For a key that does not exist, or text that is not an override.

    Example:
        >>> recipe_of("robocasa", ["num_steps=2000", "noise=sync"]).noise
        'sync'
    """
    if name not in RECIPES:
        raise RecipeError(f"There is no recipe '{name}'; choose among {', '.join(RECIPES)}.")
    defaults = OmegaConf.create(RECIPES[name].to_json())
    keys = [*map(str, defaults), *leaf_keys(defaults)]
    merged = apply_overrides(defaults, overrides, keys=keys, see="xwam train --recipes", example="num_steps=200")
    return Recipe.from_json(cast(dict[str, Any], OmegaConf.to_container(merged)))
