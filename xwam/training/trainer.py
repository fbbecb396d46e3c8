"""The training loop: takes the steps of a recipe, and resumes after an interruption.

In: a run folder, a recipe, a model to start from, a data set. Out: `checkpoint.safetensors` for the policy `xwam`,
`state.safetensors` to resume from, `log.jsonl`, `curve.png`, `imagined.png`, `run.json`.
Read next: `batches.py` for the input of a step, `objective.py` for its loss, `state.py` for resuming.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from evalkit.contracts.files import write_whole
from evalkit.dataset.layout import Broken, BrokenEpisode, Scan
from xwam.checkpoints.bundle import Bundle, save_checkpoint
from xwam.checkpoints.metadata import read_notes
from xwam.families import family_of
from xwam.flow.losses import Batch
from xwam.flow.sampler import Schedule
from xwam.network.transformer import Trunk
from xwam.training.batches import ClipGroup, Draws, Encoder, Slot, clip_at, read
from xwam.training.check_data import check_fit, named
from xwam.training.clips import ClipDataset, ClipShape, Sample
from xwam.training.latent_cache import LatentClips
from xwam.training.log import Log, draw_curve
from xwam.training.objective import Objective
from xwam.training.optim import optimizers_of, set_rate
from xwam.training.recipes import Recipe
from xwam.training.sharding import plan_sharding, register_forward_methods, reshard
from xwam.training.state import Average, StateError, gathered, load_state, save_state
from xwam.training.validation import draw_imagined, imagine_clips, judge

IMAGINED = "imagined.png"
CHECKPOINT, STATE, LOG, CURVE, ABOUT = (
    "checkpoint.safetensors",
    "state.safetensors",
    "log.jsonl",
    "curve.png",
    "run.json",
)
LOG_EVERY = 10

ENCODED_EACH_TIME = (
    " These steps decoded and encoded their images; a training stores the latents (encode_once), and is faster once it "
    "has read every episode."
)

VALIDATION_STEP = -1
"""Step number that seeds the noise of the validation; no training step has it."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The clips to train on and the clips that are held out for validation.

    Attributes:
        training: Clips of most episodes.
        held_out: Clips of the other episodes, without augmentation. None if there is none.
        episodes: All episodes with their numbers of frames.
        sha256: Hash of all episodes, see `data_sha256`.
        description: Counts of episodes, frames, clips and broken episodes.
    """

    training: ClipDataset | LatentClips
    held_out: ClipDataset | LatentClips | None
    episodes: dict[str, int]
    sha256: str
    description: str


def data_sha256(root: Path, keys: Iterable[str]) -> str:
    """Return the hash of the JSON files of episodes, which does not cover their videos."""
    digest = hashlib.sha256()
    for key in sorted(keys):
        digest.update((root / "data" / f"{key}.json").read_bytes())
    return digest.hexdigest()


def prepare_data(root: Path, scan: Scan, bundle: Bundle, recipe: Recipe) -> Data:
    """Return the clips of a data set, split by episode; the split depends on the recipe's seed only.

    Raises:
        ValueError: If there is no clip to train on, or data and model do not fit; the message names both sides.
    """
    check_fit(root, scan, bundle.model)
    keys = sorted(scan.lengths, key=lambda key: hashlib.sha256(f"{recipe.seed}/{key}".encode()).digest())
    num_held = min(len(keys) - 1, max(1, round(recipe.validation_share * len(keys)))) if recipe.validate_every else 0
    split = [{key: scan.lengths[key] for key in sorted(chosen)} for chosen in (keys[num_held:], keys[:num_held])]
    settings = {"crop_frac": recipe.crop_frac, "past_end": recipe.past_end, "exact_depth": recipe.exact_depth}
    plain = [
        ClipDataset.for_model(root, lengths, bundle.model, augmentation=augmentation, **settings)  # type: ignore[arg-type]
        for lengths, augmentation in zip(split, (recipe.augmentation, None), strict=True)
    ]
    training, held_out = cast(list[ClipDataset | LatentClips], plain)
    if recipe.encode_once:
        has_depth = bundle.model.network.depth != "none"
        training, held_out = (
            LatentClips(clips, bundle.codec, bundle.model.codec, root / "latents", depth=has_depth) for clips in plain
        )
    short = plain[0].without_clip() + plain[1].without_clip()
    left_out = f"; left out: {short_episodes(short, plain[0].shape)}" if short else ""
    if not len(training):
        raise ValueError(f"{root} holds no clip to train on: {scan.describe()}{left_out}.")
    return Data(
        training=training,
        held_out=held_out if len(held_out) else None,
        episodes=scan.lengths,
        sha256=data_sha256(root, scan.lengths),
        description=f"{scan.describe()}; {len(training)} clips to train on, {num_held} episodes held out{left_out}",
    )


def short_episodes(keys: Sequence[str], shape: ClipShape) -> str:
    """Return which episodes are too short for a clip, and what would use them.

    Example:
        >>> short_episodes(["a", "b"], ClipShape())
        '2 episodes of at most 32 steps, in which no clip ends (a, b); past_end=hold would use them'
    """
    count = "1 episode" if len(keys) == 1 else f"{len(keys)} episodes"
    return (
        f"{count} of at most {shape.span} steps, in which no clip ends ({named(sorted(keys))}); past_end=hold would "
        "use them"
    )


class Trainer:
    """One training in one folder.

    Args:
        folder: Run folder; the training resumes from a state in it.
        bundle: The model to start from, with the bounds of the data.
        data: The clips.
        recipe: The training recipe.
        command: Command line of the user, for `run.json`.
        objective: Builds the objective; the default is that of the model's family.
        say: Called with each line of progress.
    """

    def __init__(
        self,
        folder: Path,
        bundle: Bundle,
        data: Data,
        recipe: Recipe,
        *,
        command: str = "",
        objective: Callable[[Any, Recipe], Objective] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        from accelerate import Accelerator  # an extra, needed only to train

        self.folder, self.bundle, self.data, self.recipe = folder, bundle, data, recipe
        self.command, self._say = command, say
        self.broken: set[str] = set()
        self.asked_to_stop = False
        self.accelerator = Accelerator(mixed_precision=recipe.precision, cpu=not torch.cuda.is_available())
        self.family = family_of(bundle.model.family)
        built = cast(nn.Module, (objective or self.family.objective)(bundle.network, recipe))
        optimizers = optimizers_of(built, recipe)
        plan_sharding(self.accelerator)
        self.objective, *prepared = self.accelerator.prepare(built, *optimizers)
        register_forward_methods(self.accelerator, self.objective)
        self.optimizers: list[torch.optim.Optimizer] = prepared
        self._network = cast(nn.Module, self.accelerator.unwrap_model(self.objective).network)
        self.average = Average(self._network, recipe.ema_decay) if recipe.ema_decay else None
        self.encoder = Encoder(bundle, recipe, self.accelerator.device)
        self.step = self.saved_step = 0
        if (folder / STATE).is_file():
            try:
                self.step = load_state(
                    folder / STATE, self._network, self.average, self._plain(), identity=self.identity()
                )
            except StateError as error:
                raise StateError(f"{error}{self._other_episodes()}") from error
            self.saved_step = self.step
            self._report(f"resumes at step {self.step}")

    def identity(self) -> dict[str, Any]:
        """Return recipe, model and data, which must not change when a training resumes."""
        return {"recipe": self.recipe.to_json(), "model": self.bundle.model.to_json(), "data": self.data.sha256}

    def _other_episodes(self) -> str:
        """Return the episodes that changed since the run in the folder started, and advice; empty if none did."""
        path = self.folder / ABOUT
        began = json.loads(path.read_text()).get("episodes", {}) if path.is_file() else {}
        now = self.data.episodes if began else {}
        changes = [
            f"{len(keys)} {'episode is' if len(keys) == 1 else 'episodes are'} {change} ({named(keys)})"
            for change, keys in (
                ("gone or broken", [key for key in began if key not in now]),
                ("new", [key for key in now if key not in began]),
                ("of another length", [key for key in now if began.get(key, now[key]) != now[key]]),
            )
            if keys
        ]
        if not changes:
            return ""
        return (
            f" Since it started, {' and '.join(changes)}. Resuming needs the same episodes: restore them, or train in "
            f"another folder with `--start {self.folder / CHECKPOINT}`, which starts from the weights only."
        )

    def run(
        self,
        *,
        stop_at: int | None = None,
        until_s: float | None = None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Take the remaining steps; after each one, stop and save the state if `asked_to_stop` is true.

        Args:
            stop_at: Stop before this step, and save the state.
            until_s: Stop when `time.monotonic()` is later than this, and save the state.
            on_progress: Called with (steps done, steps in all).
        """
        recipe, last = self.recipe, min(self.recipe.num_steps, stop_at or self.recipe.num_steps)
        if self.accelerator.is_main_process:
            self.log = Log(self.folder / LOG, first_step=self.step)
            self._write_about()
        if self._checkpoint_step() < self.step:
            self._report(f"{self.folder / CHECKPOINT} is missing or older than the state; it is written again")
            self._save_checkpoint()
        started, since = time.monotonic(), list[dict[str, float]]()
        for clips in self._read(self.data.training, self.step, last):
            since.append(self._one_step(clips))
            self.step += 1
            on_progress(self.step, recipe.num_steps)
            if self.step % LOG_EVERY == 0 or self.step == last:
                means = {name: sum(values[name] for values in since) / len(since) for name in since[0]}
                self._log("train", {**means, "s_per_step": (time.monotonic() - started) / len(since)})
                started, since = time.monotonic(), []
            if self.data.held_out and recipe.validate_every and self.step % recipe.validate_every == 0:
                self._log("validation", self.validate(self.data.held_out))
                self._imagine(self.data.held_out)
            late = self.asked_to_stop or (until_s is not None and time.monotonic() > until_s)
            if self.step % recipe.save_every == 0 or self.step == last or late:
                self.save()
            if late:
                break

    def try_out(self, num_steps: int = 4) -> str:
        """Take a few steps without saving anything, and return the time and memory that they need.

        Args:
            num_steps: Number of steps, at least 2; the first one is timed separately.
        """
        plain = _unencoded(self.data.training)
        started, lines = time.monotonic(), []
        for clips in self._read(plain, self.step, self.step + num_steps):
            self._one_step(clips)
            lines.append(time.monotonic())
        pace = (lines[-1] - lines[0]) / (num_steps - 1)
        hours = pace * self.recipe.num_steps / 3600
        weights = sum(weight.numel() for weight in self._network.parameters())
        return (
            f"{weights:,} weights on {self.accelerator.num_processes} x {self.accelerator.device}: "
            f"{lines[0] - started:.1f} s for the first step, {pace:.2f} s for each later one, "
            f"{hours:.1f} hours for {self.recipe.num_steps} steps; at most {_peak_gib():.1f} GiB of memory."
            + ("" if plain is self.data.training else ENCODED_EACH_TIME)
        )

    def _read(self, clips: ClipDataset | LatentClips, first: int, last: int) -> Iterator[ClipGroup]:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return read(clips, self.recipe, first_step=first, num_steps=last, rank=rank, world=world)

    def _one_step(self, clips: ClipGroup) -> dict[str, float]:
        """Take one step of the optimizer; return the values to log."""
        for broken in clips.broken:
            self._report_broken(broken, "left out")
        rate = set_rate(self._plain(), self.step, self.recipe)
        sums: dict[str, Tensor] = {}
        batches = list(self._micro_batches(clips))
        for index, (batch, draws) in enumerate(batches):
            with self._syncing(last=index == len(batches) - 1):
                losses = self.objective(batch, draws)
                self.accelerator.backward(losses["total"] / len(batches))
            for name, value in losses.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() / len(batches)
        norm = self.accelerator.clip_grad_norm_(self.objective.parameters(), self.recipe.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if self.average:
            self.average.update(self._network, self.step)
        means = {name: float(self.accelerator.reduce(value, "mean")) for name, value in sums.items()}
        return {**means, "gradient_norm": float(norm), "learning_rate": rate}

    def _micro_batches(self, clips: ClipGroup) -> Iterator[tuple[Batch, Draws]]:
        size = self.recipe.micro_batch
        for start in range(0, len(clips.samples), size):
            chosen = slice(start, start + size)
            batch = self.encoder.batch(clips.samples[chosen])
            yield batch, self.encoder.draws(batch, clips.samples[chosen], clips.slots[chosen])

    def _syncing(self, *, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self.accelerator.no_sync(self.objective)

    @torch.no_grad()
    def validate(self, clips: ClipDataset | LatentClips) -> dict[str, float]:
        """Return the mean losses on held-out clips; the result is empty if all of them are broken.

        Clips and draws are the same every time. The weights are those of a checkpoint: averaged, if the recipe
        averages weights.
        """
        recipe = replace(self.recipe, noise_draws=1, text_drop=0.0)
        encoder = Encoder(self.bundle, recipe, self.accelerator.device)
        losses: list[dict[str, float]] = []
        with self._averaged():
            for position in range(min(recipe.validation_clips, len(clips))):
                slot = Slot(VALIDATION_STEP, position, clip_at(recipe.seed, len(clips), position))
                try:
                    sample = clips[slot.clip_idx]
                except BrokenEpisode as error:
                    self._report_broken(Broken(clips.where(slot.clip_idx)[0], str(error)), "left out of the validation")
                    continue
                batch = encoder.batch([sample])
                values = self.objective(batch, encoder.draws(batch, [sample], [slot]))
                losses.append({name: float(value) for name, value in values.items()})
            reshard(self.objective)
        return {name: sum(values[name] for values in losses) / len(losses) for name in (losses[0] if losses else ())}

    def _imagine(self, clips: ClipDataset | LatentClips) -> None:
        """Measure and draw the predictions of the model on a few held-out clips."""
        plain = _unencoded(clips)
        count = min(self.recipe.imagined_clips, len(plain))
        if count == 0:
            return
        with self._finished() as network:
            if self.accelerator.is_main_process:
                self._imagine_with(self.bundle._replace(network=network), plain, count)

    def _imagine_with(self, bundle: Bundle, plain: ClipDataset, count: int) -> None:
        samples: list[Sample] = []
        for position in range(count):
            clip_idx = clip_at(self.recipe.seed, len(plain), position)
            try:
                samples.append(plain[clip_idx])
            except BrokenEpisode as error:
                self._report_broken(Broken(plain.where(clip_idx)[0], str(error)), "left out of the predictions")
        if not samples:
            return
        video_steps, action_steps = self.recipe.imagined_steps
        schedule = Schedule(num_video_steps=video_steps, num_action_steps=action_steps)
        imagined = imagine_clips(bundle, samples, schedule, device=self.accelerator.device)
        self._log("imagined", judge(imagined, samples))
        draw_imagined(self.folder / IMAGINED, imagined, samples[:2])

    def save(self) -> None:
        """Write state, checkpoint and curve, each whole or not at all; every device must call this."""
        save_state(
            self.folder / STATE,
            self._network,
            self.average,
            self._plain(),
            step=self.step,
            identity=self.identity(),
            writer=self.accelerator.is_main_process,
        )
        self.saved_step = self.step
        self._save_checkpoint()

    def _save_checkpoint(self) -> None:
        """Write checkpoint and curve; every device must call this."""
        network = self._whole()
        if self.accelerator.is_main_process:
            notes = {"recipe": json.dumps(self.recipe.to_json()), "data_sha256": self.data.sha256}
            notes |= {"steps": str(self.step), "command": self.command, "data": self.data.description}
            save_checkpoint(self.folder / CHECKPOINT, network, self.bundle.model, notes=notes)
            draw_curve(self.folder / LOG, self.folder / CURVE)
        self.accelerator.wait_for_everyone()

    def _checkpoint_step(self) -> int:
        """Return the step of the checkpoint in the folder; 0 if it is missing or broken."""
        try:
            return int(read_notes(self.folder / CHECKPOINT)["steps"])
        except (KeyError, ValueError):
            return 0

    def _whole(self) -> Trunk:
        """Return a copy, on the CPU, of the network that a checkpoint holds; every device must call this."""
        trained = dict(self._network.named_parameters()) if self.average is None else self.average.weights
        weights = {name: gathered(weight) for name, weight in trained.items()}
        with torch.device("meta"):
            network = self.family.build(self.bundle.model.network)
        network.load_state_dict(weights, assign=True)
        return network

    @contextmanager
    def _finished(self) -> Iterator[Trunk]:
        """Give the network that a checkpoint would hold; a copy if weights are sharded over devices."""
        if self.accelerator.is_fsdp2:
            whole = self._whole()
            yield whole.to(self.accelerator.device) if self.accelerator.is_main_process else whole
        else:
            with self._averaged():
                yield cast(Trunk, self._network)

    def _averaged(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.average is None else _Swapped(self._network, self.average)

    def _plain(self) -> list[torch.optim.Optimizer]:
        """Return the optimizers themselves, without Accelerate's wrapping."""
        return [getattr(optimizer, "optimizer", optimizer) for optimizer in self.optimizers]

    def _log(self, kind: str, values: Mapping[str, float]) -> None:
        if values and self.accelerator.is_main_process:
            self.log.add(self.step, kind, values)
            shown = {name: f"{value:.4g}" for name, value in values.items()}
            self._say(f"step {self.step}/{self.recipe.num_steps} {kind}: {shown}")

    def _report_broken(self, broken: Broken, consequence: str) -> None:
        """Report once that an episode is left out, not for each of its clips."""
        if broken.key not in self.broken:
            self.broken.add(broken.key)
            self._report(f"{consequence}: {broken.reason}")

    def _report(self, line: str) -> None:
        if self.accelerator.is_main_process:
            self._say(line)

    def _write_about(self) -> None:
        about = {
            **self.identity(),
            "command": self.command,
            "data_description": self.data.description,
            "episodes": self.data.episodes,
            "devices": self.accelerator.num_processes,
            "device": str(self.accelerator.device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "host_cores": os.cpu_count(),
        }
        write_whole(self.folder / ABOUT, json.dumps(about, indent=1) + "\n")


def _unencoded(clips: ClipDataset | LatentClips) -> ClipDataset:
    """Return clips with images instead of latents."""
    return clips.clips if isinstance(clips, LatentClips) else clips


def _peak_gib() -> float:
    """Return the peak memory of this process: of the GPU if there is one, else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class _Swapped:
    """Puts averaged weights into a network while the context is open."""

    def __init__(self, network: nn.Module, average: Average) -> None:
        self._pairs = [(weight, average.weights[name]) for name, weight in network.named_parameters()]

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for weight, averaged in self._pairs:
            current = weight.detach().clone()
            weight.copy_(averaged)
            averaged.copy_(current)
