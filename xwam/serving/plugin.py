"""What the policies of all families share: which model a setting names, what identifies it, how it is loaded.

In: the settings of a policy. Out: a model's configuration, its provenance, its weights in memory.
Read next: `xwam/policy.py` and `baselines/uwm/policy.py`, two policies; `xwam/families.py` for the models.

Importing it loads no framework.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from evalkit.contracts.env import Finding
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.limits import check_device, check_folder, check_range
from evalkit.contracts.memory import keep_freed_memory
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import PolicySpec
from evalkit.contracts.types import Prediction
from xwam.checkpoints.hub import find_weights, locate
from xwam.checkpoints.metadata import CheckpointError, read_model, read_notes
from xwam.checkpoints.tokenizer import HOW, find_tokenizer, identity_of, load_tokenizer
from xwam.config import PRECISIONS, ModelConfig
from xwam.families import OWN, Family, family_of
from xwam.robots.interfaces import INTERFACES

if TYPE_CHECKING:
    from xwam.checkpoints.bundle import Bundle

TEXT_PACKAGES = ("transformers", "ftfy")
"""What umT5 and its tokenizer need."""

AUTO = "auto"
"""Precision that depends on the device."""

UNTRAINED = "random-"
"""First part of the names that stand for random weights: `random-nano` for the model `nano` of a family."""

MAX_THREADS, MAX_GUIDANCE, MAX_SEED, MAX_MEMORY_GIB, MAX_HEADS, MAX_WIDTH = 1024, 100, 2**63 - 1, 1024, 1024, 64

MAX_STEPS = 1000
"""Noise levels of the training, which a schedule cannot exceed."""


@dataclass(frozen=True)
class ModelSettings:
    """Settings that every policy with a model has.

    Attributes:
        checkpoint: Weights: a path, an id on the Hugging Face hub, a shipped name such as `nano` where the family has
            one, or `random-nano`, `random-nano-robocasa`, `random-nano-robotwin` for random ones.
        init_seed: Seed of random weights.
        execute_steps: Actions of a chunk that are executed before the next one is asked for; None for the model's own.
        guidance: 0 for one conditional pass in each step; above 1, the weight of conditional minus unconditional
            velocity.
        threads: CPU threads of a forward pass.
        width: Rows of every forward pass, 1 to 64: so many requests can share one. Replies do not depend, to the bit,
            on who shares them, but their last bits depend on the number.
        device: Device of network, VAE and text encoder, for example `cuda`.
        precision: Type of the network's matrices, for example `bfloat16`; `auto` is bfloat16 on CUDA, as in the
            released evaluation, and float32 elsewhere. Heads, timesteps, actions and states always stay float32.
        tokenizer: Where umT5's tokenizer lies if the checkpoint holds none, as the released ones: the Wan2.2 folder,
            the tokenizer's own folder, or an id on the Hugging Face hub (`google/umt5-xxl`).
        num_heads: Attention heads of a released network whose heads are not 128 wide; None for that width.
        prompt_memory_gib: Largest memory of the prompts that are stored for the next request.
        text_cache: Folder that stores encoded prompts; None to encode them again in every run.
    """

    checkpoint: str = "random-nano"
    init_seed: int = 0
    execute_steps: int | None = None
    guidance: float = 0.0
    threads: int = 1
    width: int = 1
    device: str = "cpu"
    precision: str = "auto"
    tokenizer: str | None = None
    num_heads: int | None = None
    prompt_memory_gib: float = 1.0
    text_cache: str | None = None


AnyPolicy = TypeVar("AnyPolicy", bound=Policy)


class ModelPlugin(ABC, Generic[AnyPolicy]):
    """Base of the policy plugins of all families.

    A subclass sets the class attributes, and implements `spec`, `schedule_facts` and `policy`. One whose models predict
    is a `PredictingPlugin`.

    Args:
        bench: The bench of the plan; None if it is not known. A model of another known bench is refused.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    config_type: ClassVar[type[Any]]
    family_name: ClassVar[str] = OWN

    def __init__(self, bench: str | None = None) -> None:
        self._bench = bench

    @property
    def family(self) -> Family:
        """Return the family of its models."""
        return family_of(self.family_name)

    def for_bench(self, bench: str) -> Self:
        """Return the plugin that accepts only models of this bench, if models of it are known."""
        return type(self)(bench)

    def for_dry_run(self, config: Any, given: Collection[str]) -> tuple[Any, str] | None:
        """Return settings with random weights and a warning, where no checkpoint is given and nano does not suit."""
        untrained = None if "checkpoint" in given else self._stand_in_for(self.model(config))
        if untrained is None or self._bench is None:
            return None
        return replace(config, checkpoint=untrained), (
            f"No checkpoint is given: plan, hash and hours are those of random weights ({untrained}); give "
            f"{self._how_to_load(self._bench)} for those of the trained ones."
        )

    @abstractmethod
    def spec(self, config: Any) -> PolicySpec:
        """Return what the model needs and predicts, read from the metadata of its checkpoint.

        Raises:
            BadConfig: If the settings cannot be followed, or the model is one of another bench.
        """

    @abstractmethod
    def schedule_facts(self, config: Any, model: ModelConfig) -> Mapping[str, str]:
        """Return the part of the provenance that differs between families: denoising, execution, departures."""

    @abstractmethod
    def policy(self, config: Any, bundle: Bundle) -> AnyPolicy:
        """Return the policy for a model in memory."""

    def provenance(self, config: Any) -> dict[str, str]:
        """Return hash and size of the weights, how the model is asked, and the departures from its own settings."""
        model = self.model(config)
        rows = {} if config.width == 1 else {"rows of a pass": str(config.width)}
        return self.model_facts(config, model) | rows | dict(self.schedule_facts(config, model))

    def glance(self, config: Any) -> list[Finding]:
        """Return where the weights are: shipped, on this machine, to be downloaded, or random."""
        return [find_weights(config.checkpoint, self.family.shipped, untrained=self.untrained(config), name=self.name)]

    def examine(self, config: Any) -> list[Finding]:
        """Return what a checkpoint with umT5 needs in addition to its weights; nothing for others."""
        if self.model(config).text.kind != "umt5":
            return []
        return [*(_package(name) for name in ("diffusers", *TEXT_PACKAGES)), self._tokenizer(config)]

    def make(self, config: Any) -> AnyPolicy:
        """Return the policy with its weights in memory.

        Raises:
            BadConfig: If checkpoint or settings cannot be used.
        """
        from xwam.checkpoints.bundle import dtype_of, with_stored_text

        self.spec(config)  # refuses what no model can follow, before weights are read
        if config.device == "cpu":
            keep_freed_memory()
        bundle = self.load(config)
        try:
            bundle = bundle.to(config.device, dtype_of(precision_of(config)))
        except (RuntimeError, AssertionError) as error:  # torch raises these where there is no such device
            reason = str(error).splitlines()[0]
            raise BadConfig(f"policy.{self.name}.device={config.device} cannot be used: {reason}.") from error
        if config.text_cache is not None:
            bundle = with_stored_text(bundle, Path(config.text_cache), identity=self.text_identity(config))
        return self.policy(config, bundle)

    # ---- for subclasses

    def check(self, config: Any) -> None:
        """Raise BadConfig unless a model can follow the settings; nothing is loaded."""
        if config.precision not in (AUTO, *PRECISIONS):
            choices = ", ".join((AUTO, *PRECISIONS))
            raise BadConfig(f"policy.{self.name}.precision must be one of {choices}, got {config.precision}.")
        for name in ("checkpoint", "tokenizer", "text_cache"):
            if getattr(config, name) == "":
                raise BadConfig(f"policy.{self.name}.{name} is empty; give a name or leave the setting out.")
        check_range(f"policy.{self.name}.threads", config.threads, 1, MAX_THREADS)
        check_guidance(f"policy.{self.name}.guidance", config.guidance)
        check_range(f"policy.{self.name}.width", config.width, 1, MAX_WIDTH)
        check_range(f"policy.{self.name}.init_seed", config.init_seed, 0, MAX_SEED)
        check_range(f"policy.{self.name}.prompt_memory_gib", config.prompt_memory_gib, 0, MAX_MEMORY_GIB)
        if config.num_heads is not None:
            check_range(f"policy.{self.name}.num_heads", config.num_heads, 1, MAX_HEADS)
        check_device(f"policy.{self.name}.device", config.device)
        if config.text_cache is not None:
            check_folder(f"policy.{self.name}.text_cache", config.text_cache)

    def accepted_model(self, config: Any) -> ModelConfig:
        """Return the configuration of the model that will be loaded, if settings and bench fit it.

        Raises:
            BadConfig: If the settings cannot be followed, or the model is one of another bench or family.
        """
        self.check(config)
        model = self.model(config)
        self.require_model_of_bench(config, model)
        return model

    def spec_of(self, config: Any, model: ModelConfig, *, note: str = "", **differing: Any) -> PolicySpec:
        """Return the spec of a model's policy.

        Args:
            config: The settings.
            model: The model.
            note: Part of the id that follows the model's name.
            differing: Fields of the spec that depend on the family; `chunk_len` is the model's unless it is given.
        """
        interface = INTERFACES[model.bench]
        fields = {"chunk_len": model.num_actions} | differing
        return PolicySpec(
            policy_id=f"{self.name}/{model.name}{note}" + ("-random" if self.untrained(config) else ""),
            action_layouts=(interface.layout,),
            views=model.views,
            image_hw_px=interface.env_image_hw_px(model),
            arms=model.arms,  # type: ignore[arg-type]
            control_hz=model.control_hz,
            **fields,
        )

    def executed(self, config: Any, chunk_len: int, own: int) -> int:
        """Return how many actions of a chunk are executed.

        Args:
            config: The settings.
            chunk_len: Actions of a chunk.
            own: The model's own number.

        Raises:
            BadConfig: If a chunk has fewer.
        """
        steps = own if config.execute_steps is None else config.execute_steps
        check_range(f"policy.{self.name}.execute_steps", steps, 1, chunk_len)
        return int(steps)

    def untrained(self, config: Any) -> bool:
        """Return whether the settings name random weights."""
        return self._untrained_model(config.checkpoint) is not None

    def model(self, config: Any) -> ModelConfig:
        """Return the configuration of the model that will be loaded, without loading it.

        Raises:
            BadConfig: If the checkpoint cannot be used, or holds a model of another family.
        """
        if (model := self._untrained_model(config.checkpoint)) is not None:
            return model
        try:
            model = read_model(self._locate(config, header_only=True))
        except CheckpointError as error:
            raise BadConfig(str(error)) from error
        if model.family != self.family_name:
            raise BadConfig(
                f"policy.{self.name}.checkpoint={config.checkpoint} is a model of the family '{model.family}', but "
                f"--policy {self.name} runs those of '{self.family_name}'; give another checkpoint or policy."
            )
        return model

    def require_model_of_bench(self, config: Any, model: ModelConfig) -> None:
        """Raise BadConfig for a model of another bench: there, its axes, actions and images have another meaning."""
        untrained = self._stand_in_for(model)
        if untrained is None or self._bench is None:
            return
        raise BadConfig(
            f"policy.{self.name}.checkpoint={config.checkpoint} is a model of {model.bench}, not of {self._bench}; "
            f"give {self._how_to_load(self._bench)} for the trained one, or policy.{self.name}.checkpoint={untrained} "
            f"for random weights, which only show that a run works."
        )

    def model_facts(self, config: Any, model: ModelConfig) -> dict[str, str]:
        """Return what identifies the weights, and their number."""
        note = ": an untrained network" if self.untrained(config) else ""
        return {
            "model": model.name,
            "weights": self.identity(config) + note,
            "training": self._training(config),
            "parameters": self._num_parameters(config, model),
            "precision": f"{precision_of(config)}; heads, timesteps, actions and states in float32",
        } | self._text_facts(config, model)

    def load(self, config: Any) -> Bundle:
        """Return the model of the checkpoint.

        Raises:
            BadConfig: If it cannot be used.
        """
        import torch

        from xwam.checkpoints.bundle import load_bundle
        from xwam.checkpoints.fresh import fresh_bundle

        self.check(config)
        model = self.model(config)
        torch.set_num_threads(config.threads)
        try:
            if self.untrained(config):
                return fresh_bundle(model, seed=config.init_seed)
            return load_bundle(str(self._locate(config)), num_heads=config.num_heads, tokenizer=config.tokenizer)
        except ValueError as error:
            raise BadConfig(str(error)) from error

    def is_released(self, config: Any) -> bool:
        """Return whether the weights are a checkpoint in the layout of X-WAM's release."""
        return not self.untrained(config) and (self._locate(config) / "config.yaml").is_file()

    def identity(self, config: Any) -> str:
        """Return the identity of the weights: the hash of the file, or of all files of a folder."""
        if self.untrained(config):
            return f"random, init_seed {config.init_seed}"
        path = self._locate(config)
        if path.is_file():
            return f"sha256 {_sha256(path)}"
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = "".join(f"{_sha256(file)}  {file.relative_to(path)}\n" for file in files)
        return f"sha256 of sha256sums {hashlib.sha256(lines.encode()).hexdigest()}"

    def text_identity(self, config: Any) -> str:
        """Return the identity of everything that decides the text of a prompt."""
        if self.model(config).text.kind != "umt5":
            return self.identity(config)
        folder = find_tokenizer(self._locate(config, header_only=True), config.tokenizer)
        return f"{self.identity(config)}, tokenizer {identity_of(folder) if folder else 'none'}"

    # ---- own

    def _locate(self, config: Any, *, header_only: bool = False) -> Path:
        """Return the path of the checkpoint; a shipped name means this family's weights."""
        shipped = self.family.shipped.get(config.checkpoint)
        return locate(config.checkpoint, header_only=header_only) if shipped is None else shipped

    def _untrained_model(self, checkpoint: str) -> ModelConfig | None:
        """Return the model with random weights of that name; those that need the weights of a codec have none."""
        model = self.family.models.get(checkpoint.removeprefix(UNTRAINED)) if checkpoint.startswith(UNTRAINED) else None
        return model if model is not None and model.text.kind == "hashed" else None

    def _stand_in_for(self, model: ModelConfig) -> str | None:
        """Return the name of random weights for this bench if it refuses a model; None if it accepts the model."""
        if self._bench == model.bench:
            return None
        named = (name for name, each in self.family.models.items() if each.bench == self._bench)
        return next((UNTRAINED + name for name in named if self._untrained_model(UNTRAINED + name)), None)

    def _how_to_load(self, bench: str) -> str:
        """Return the settings that load the trained model of a bench."""
        settings = self.family.trained.get(bench, "checkpoint=YOUR_CHECKPOINT")
        return " ".join(f"policy.{self.name}.{setting}" for setting in settings.split(" "))

    def _training(self, config: Any) -> str:
        """Return the training notes of a checkpoint of ours."""
        notes = {} if self.untrained(config) else read_notes(self._locate(config))
        if "steps" not in notes:
            return "not stated"
        return f"{notes['steps']} steps in its last training stage, data sha256 {notes['data_sha256']}"

    def _num_parameters(self, config: Any, model: ModelConfig) -> str:
        """Return the number of parameters of the network, counted in the weights if the metadata does not tell."""
        try:
            if not self.is_released(config):
                return str(sum(self.family.count_parameters(model.network).values()))
            from xwam.checkpoints.bundle import parameter_counts

            counts = parameter_counts(self._locate(config))
        except CheckpointError as error:
            raise BadConfig(str(error)) from error
        return "unknown until loaded" if counts is None else str(sum(counts.values()))

    def _text_facts(self, config: Any, model: ModelConfig) -> dict[str, str]:
        """Return the tokenizer of umT5, or a precision that differs from that of training."""
        if model.text.kind == "umt5":
            return {"tokenizer": self._tokenizer(config).found}
        unread = {} if config.tokenizer is None else {"tokenizer": f"{config.tokenizer} is not read: no umT5"}
        if precision_of(config) == "float32":
            return unread
        return unread | {
            "departures from the model's own precision": f"matrices in {precision_of(config)} instead of float32"
        }

    def _tokenizer(self, config: Any) -> Finding:
        """Return which tokenizer umT5 will use, or why there is none."""
        from xwam.checkpoints.bundle import num_embeddings

        remedy = f"write policy.{self.name}.tokenizer=FOLDER: {HOW}"
        try:
            checkpoint = self._locate(config, header_only=True)
            folder = find_tokenizer(checkpoint, config.tokenizer)
            if folder is None:
                return Finding(what="a tokenizer", ok=False, found=f"{config.checkpoint} holds none", remedy=remedy)
            if all(_package(name).ok for name in TEXT_PACKAGES):
                load_tokenizer(folder, num_embeddings=num_embeddings(checkpoint))
            own = folder == find_tokenizer(checkpoint)
            unused = f"; policy.{self.name}.tokenizer is not read" if own and config.tokenizer is not None else ""
            found = f"{identity_of(folder)}, {'of the checkpoint' if own else 'given'}{unused}"
            return Finding(what="a tokenizer", ok=True, found=found, remedy=remedy)
        except CheckpointError as error:
            reason, _, advice = str(error).rstrip(".").rpartition("; ")
            return Finding(what="a tokenizer", ok=False, found=reason or advice, remedy=advice if reason else remedy)


class PredictingPlugin(ModelPlugin[AnyPolicy]):
    """Base of the plugins whose models predict; a subclass also implements `engine`."""

    @abstractmethod
    def engine(self, config: Any, bundle: Bundle) -> Any:
        """Return the engine for a model in memory."""

    def codec(self, config: Any) -> Callable[[Prediction], Prediction]:
        """Return the codec's round trip (encode, decode); the network stays where it was loaded and is not used.

        Raises:
            BadConfig: If the checkpoint cannot be used.
        """
        from xwam.checkpoints.bundle import Movable

        self.spec(config)
        bundle = self.load(replace(config, tokenizer=None))
        if isinstance(bundle.codec, Movable):
            bundle.codec.to(config.device)
        round_trip: Callable[[Prediction], Prediction] = self.engine(config, bundle).round_trip
        return round_trip


def check_guidance(name: str, guidance: float) -> None:
    """Raise BadConfig unless a weight is 0, which runs the conditional pass alone, or above 1.

    Example:
        >>> check_guidance("policy.xwam.guidance", 2.0)
    """
    check_range(name, guidance, 0, MAX_GUIDANCE)
    if 0 < guidance <= 1:
        raise BadConfig(
            f"{name} must be 0 or above 1, got {guidance}: guided velocities are empty + guidance * (prompt - empty), "
            "so a weight of 1 is the conditional pass at twice its cost (give 0), and a smaller one weakens the prompt."
        )


def departures(*settings: tuple[str, Any, Any]) -> str:
    """Return the departures from a model's own settings, each given as name, value of the run and the model's own.

    Example:
        >>> departures(("execute_steps", 8, 32), ("guidance", 0.0, 0))
        'execute_steps 8 in place of 32'
        >>> departures(("guidance", 0.0, 0))
        'none'
    """
    return ", ".join(f"{name} {value} in place of {own}" for name, value, own in settings if value != own) or "none"


def prompt_bytes(config: Any) -> int:
    """Return the largest memory of stored prompts."""
    return int(config.prompt_memory_gib * 2**30)


def precision_of(config: Any) -> str:
    """Return the type of the network's matrices by name.

    Example:
        >>> precision_of(ModelSettings(device="cuda:1")), precision_of(ModelSettings())
        ('bfloat16', 'float32')
    """
    if config.precision != AUTO:
        return str(config.precision)
    return "bfloat16" if config.device.startswith("cuda") else "float32"


def _package(name: str) -> Finding:
    """Return whether a package that umT5 or its VAE needs is installed."""
    installed = find_spec(name) is not None
    return Finding(
        what=name,
        ok=installed,
        found=metadata.version(name) if installed else "",
        remedy="pip install -c constraints.txt -e '.[wan]'",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
