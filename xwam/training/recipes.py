"""Training recipes: all hyperparameters by name, and changes to them.

In: the name of a recipe, `key=value` overrides. Out: a frozen `Recipe`.
Read next: `trainer.py`, which uses it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, cast

from omegaconf import OmegaConf
from pydantic import Field, TypeAdapter, ValidationError

from evalkit.contracts.overrides import apply_overrides, leaf_keys
from xwam import families
from xwam.config import DepthMode
from xwam.flow.noise import CLEAN_ACTION_FRAC, NoiseMode
from xwam.training.augment import Augmentation
from xwam.training.clips import PastEnd

OptimizerKind = Literal["adamw", "muon"]


class RecipeError(ValueError):
    """An unknown recipe or setting, or a value that a setting does not allow."""


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
    """The hyperparameters of a training.

    Attributes:
        name: Name of the recipe.
        seed: Seed of fresh weights, the order of clips and every random draw.
        num_steps: Steps of the optimizer.
        batch_size: Clips per step, over all devices.
        micro_batch: Clips per forward pass of one device; gradients are accumulated over the batch.
        noise_draws: Noise levels per clip and step; the clip is read and encoded once.
        optimizer: `adamw`, or `muon` for the matrices of the blocks with AdamW for all other weights.
        learning_rate: Peak learning rate.
        warmup_steps: Steps of linear warm-up, the first at rate 0; a cosine to `final_lr_frac` follows.
        final_lr_frac: Final learning rate as a share of the peak.
        weight_decay: Decoupled weight decay.
        betas: Betas of AdamW.
        clip_norm: Largest norm of the gradient.
        ema_decay: Decay of the averaged weights, which the checkpoint holds; 0 for no averaging.
        precision: `bf16` for matrix products in bfloat16, `no` for float32; weights and optimizer stay in float32.
        checkpointing: Recompute the activations of each block instead of storing them.
        compile: Compile the blocks: minutes at the start, faster steps. A CPU needs a C++ compiler.
        noise: Distribution of the noise levels: `ans`, `decoupled`, `sync` or `sync-beta`, see `noise.draw_levels`.
        video_beta: First shape of the Beta distribution from which DreamZero draws the video's level with
            `noise=decoupled`; the second is 1, so that 1 is uniform.
        clean_action_frac: Share of samples with clean actions (p in the paper); for UWM, with clean actions or a clean
            observation, in equal parts.
        start_frac: Share of samples at the noise levels where inference starts; not in the paper.
        prefix_actions_max: Most first actions that a sample gets clean, drawn evenly from 0 on for each sample; the
            policy can then join chunks by `execution.realtime=prefix` up to this delay. 0 in the paper.
        text_drop: Share of samples with an empty prompt.
        weight_action: Weight of the action loss (lambda in equation 6).
        weight_proprio: Weight of the state loss.
        weight_depth: Weight of the depth loss.
        weight_dct: Weight of the loss on the spectrum of actions (`dct_loss_weight` of the release); 0 for none.
        train_only: Prefixes of the names of the weights to train, for example `["head.", "extra_"]`. Empty for all.
        blind: Replace all images by grey: a control experiment for the use of the cameras.
        depth: Depth mode of the network; None for the model's own.
        crop_frac: Share of rows and columns that is kept.
        augmentation: Colour jitter and random crops; None for neither.
        past_end: Clips that reach beyond an episode: `leave_out`, or `hold` their last step
        exact_depth: Whether depth comes from the millimetres instead of the 8-bit video.
        encode_once: Store latents in the data folder instead of encoding clips at every access; needs
            `augmentation=null`.
        least_action: Smallest bound of an action, so that tiny motions are not scaled up.
        validation_share: Share of episodes held out.
        validate_every: Steps between validations; 0 for none.
        validation_clips: Clips per validation.
        imagined_clips: Clips per validation whose future is predicted, measured and drawn; 0 for none.
        imagined_steps: Denoising steps of video and of actions in these predictions; a model that denoises both in the
            same steps takes the first number.
        save_every: Steps between saves.
        workers: Processes per device that read clips; 0 to read in the training process.
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
    video_beta: Positive = 1.0
    clean_action_frac: Share = CLEAN_ACTION_FRAC
    start_frac: Share = 0.0
    prefix_actions_max: Natural = 0
    text_drop: Share = 0.1
    weight_action: Amount = 1.0
    weight_proprio: Amount = 1.0
    weight_depth: Amount = 1.0
    weight_dct: Amount = 0.0
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
                f"clean_action_frac {self.clean_action_frac} and start_frac {self.start_frac} must add up to at most 1."
            )
        if self.warmup_steps > self.num_steps:
            raise RecipeError(
                f"The warm-up of {self.warmup_steps} steps is longer than the training of {self.num_steps} steps; add "
                f"warmup_steps={self.num_steps} or less."
            )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `from_json` gives the same recipe back.

        `video_beta` and `prefix_actions_max` are left out where they say nothing: the states of older versions stay
        equal.
        """
        data = asdict(self)
        if self.prefix_actions_max == 0:
            del data["prefix_actions_max"]
        if self.video_beta == 1.0:
            del data["video_beta"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """Return the recipe that `to_json` wrote.

        Raises:
            RecipeError: If a value does not have the type of its setting.
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
"""Recipe of the embedded nano weights, for one CPU core."""


def _ablations() -> list[Recipe]:
    """Return the ablations of the paper's table 4: fine-tuning from Wan2.2 with one changed setting each."""
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
"""X-WAM's recipes by name. `-released` follows the authors' configuration files where they differ from the paper."""


def all_recipes() -> dict[str, Recipe]:
    """Return the recipes of all families by name."""
    return {
        name: recipe for family in families.names() for name, recipe in families.family_of(family).recipes().items()
    }


def recipe_of(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe with Hydra overrides such as `num_steps=200` applied.

    Raises:
        RecipeError: If the recipe does not exist, or a value has another type.
        EvalkitError: If a key does not exist, or a text is not an override.

    Example:
        >>> recipe_of("robocasa", ["num_steps=2000", "noise=sync"]).noise
        'sync'
    """
    recipes = all_recipes()
    if name not in recipes:
        raise RecipeError(f"There is no recipe '{name}'; choose among {', '.join(recipes)}.")
    defaults = OmegaConf.create(asdict(recipes[name]))
    keys = [*map(str, defaults), *leaf_keys(defaults)]
    merged = apply_overrides(defaults, overrides, keys=keys, see="xwam train --recipes", example="num_steps=200")
    return Recipe.from_json(cast(dict[str, Any], OmegaConf.to_container(merged)))
