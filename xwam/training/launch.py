"""Starts a training: what lies between the command line and the loop.

In: a data set, a recipe, a checkpoint to start from. Out: a run folder; or a checkpoint with a pixel decoder.
Read next: `recipes.py` for the settings, `trainer.py` and `decoder.py` for the loops.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xwam.training.scan import Bar, no_bar, scan_data

if TYPE_CHECKING:
    from evalkit.dataset.layout import Scan
    from xwam.checkpoints.bundle import Bundle
    from xwam.config import Bounds, ModelConfig
    from xwam.nano.pixel_decoder import PixelDecoder
    from xwam.training.decoder import DecoderRecipe, ReadEpisode
    from xwam.training.recipes import Recipe
    from xwam.training.trainer import Trainer

PACKAGES = ("accelerate", "matplotlib", "skimage")
"""What the extra `train` brings."""

DEFAULT_MODEL = "xwam/nano"

LEFT_OUT = "left out: "
"""Printed before the reason of each episode that no training uses."""


def train_model(
    data_dir: Path,
    out: Path,
    recipe: Recipe,
    *,
    model: str | None = None,
    start: str | None = None,
    tokenizer: str | None = None,
    minutes: float | None = None,
    dry_run: bool = False,
    command: str = "",
    bar: Bar = no_bar,
) -> int:
    """Train until the recipe is done or the time is up; return the exit status.

    Args:
        data_dir: The data set.
        out: Run folder.
        recipe: All numbers of the training.
        model: Model to start with random weights, for example `uwm/nano`; None for `xwam/nano`.
        start: Checkpoint to start from; None for random weights.
        tokenizer: Where umT5's tokenizer lies if the checkpoint holds none (`find_tokenizer`).
        minutes: Save the state and stop after this long; None for no limit.
        dry_run: Take four steps and print time and memory; save nothing.
        command: What the user typed, for the notes.
        bar: Opens a progress bar.

    Raises:
        ValueError: If a package is missing, data, statistics, recipe and checkpoint do not fit, or both `model` and
            `start` are given.
        OSError: If the run folder cannot be written.
    """
    _check_packages()
    from xwam.families import model_named
    from xwam.training.trainer import STATE, Trainer, prepare_data
    from xwam.training.unused import refuse_unused

    fresh = model_named(model or DEFAULT_MODEL)
    _check_fresh(model or DEFAULT_MODEL, fresh)
    _check_tokenizer(start, tokenizer)
    if not (out / STATE).is_file():  # a training that an older version began goes on
        refuse_unused(recipe, model_to_train(model, start), started=start is not None)
    until_s = None if minutes is None else time.monotonic() + 60 * minutes
    scanned = scan_data(data_dir, bar, prefix=LEFT_OUT)
    if not scanned.lengths:
        raise ValueError(f"{data_dir} holds no usable episode.")
    bundle, other = _bundle(data_dir, scanned, recipe, start, tokenizer, fresh)
    data = prepare_data(data_dir, scanned, bundle, recipe)
    if other:
        data = replace(data, description=f"{data.description}; normalised by {other}")
    print(data.description)
    trainer = Trainer(out, bundle, data, recipe, command=command)
    if dry_run:
        print(trainer.try_out())
        return 0
    return _run(trainer, until_s, bar if trainer.accelerator.is_main_process else no_bar)


def default_recipe(model: str | None, start: str | None) -> str:
    """Return the name of the recipe for a model with random weights, or for a checkpoint to start from.

    Raises:
        ValueError: If there is no such model or checkpoint.
    """
    from xwam.families import family_of

    config = model_to_train(model, start)
    return family_of(config.family).default_recipe(config)


def model_to_train(model: str | None, start: str | None) -> ModelConfig:
    """Return the configuration of the model with random weights, or of the checkpoint to start from.

    Raises:
        ValueError: If there is no such model or checkpoint, or both are given.
    """
    from xwam.checkpoints.hub import locate
    from xwam.checkpoints.metadata import read_model
    from xwam.families import model_named

    if start is None:
        return model_named(model or DEFAULT_MODEL)
    if model is not None:
        raise ValueError("Give either --start or --model: a checkpoint states its model.")
    return read_model(locate(start, header_only=True))


def _check_packages() -> None:
    """Raise ValueError unless the packages that only training needs are installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ValueError(f"Training needs {' and '.join(missing)}: pip install -e '.[train]'.")


def _check_fresh(name: str, model: ModelConfig) -> None:
    """Raise ValueError for a model with the weights of others: it starts from theirs, not from random ones."""
    if model.on_wan:
        raise ValueError(
            f"{name} reads images with Wan's VAE and prompts with umT5, so it starts from Wan2.2: run `xwam convert "
            f"Wan2.2-TI2V-5B/ fresh/ --model {name} --start {model.bench} --statistics FILE`, then train with "
            f"--start fresh/ in place of --model."
        )


def _check_tokenizer(start: str | None, setting: str | None) -> None:
    """Raise ValueError unless the checkpoint to start from has the tokenizer that it needs; reads no weights."""
    from xwam.checkpoints.hub import locate
    from xwam.checkpoints.metadata import read_model
    from xwam.checkpoints.tokenizer import HOW, find_tokenizer, load_tokenizer

    checkpoint = None if start is None else locate(start, header_only=True)
    if checkpoint is None or read_model(checkpoint).text.kind != "umt5":
        if setting is not None:
            raise ValueError("--tokenizer is for a --start that reads its prompts with umT5; leave it out.")
        return
    folder = find_tokenizer(checkpoint, setting)
    if folder is None:
        raise ValueError(f"{start} holds no tokenizer; give --tokenizer FOLDER: {HOW}.")
    load_tokenizer(folder)


def _bundle(
    data_dir: Path, scanned: Scan, recipe: Recipe, start: str | None, tokenizer: str | None, fresh: ModelConfig
) -> tuple[Bundle, str]:
    """Return the model to train, and what its statistics are of if not of this data set (else empty)."""
    from evalkit.dataset.layout import read_track
    from xwam.checkpoints.bundle import load_bundle
    from xwam.checkpoints.fresh import fresh_bundle
    from xwam.training.initialise import prepare_for_training

    if start is not None:
        started = prepare_for_training(load_bundle(start, tokenizer=tokenizer), scanned, data_dir, recipe)
        if recipe.depth is not None and recipe.depth != started.model.network.depth:
            raise ValueError(
                f"{start} was built for depth '{started.model.network.depth}', the recipe says '{recipe.depth}'."
            )
        return started._replace(model=_marked(started.model, recipe)), ""
    raw = read_track(data_dir, next(iter(scanned.lengths))).raw
    bounds, other = _bounds(data_dir, scanned, fresh, raw=raw, least_action=recipe.least_action)
    if other:
        print(f"warning: {data_dir} is normalised by {other}; if not intended, run `xwam statistics` first.")
    model = _marked(replace(fresh, bounds=bounds), recipe)
    if recipe.depth is not None:
        model = replace(model, network=replace(model.network, depth=recipe.depth))
    return fresh_bundle(model, seed=recipe.seed), other


def _marked(model: ModelConfig, recipe: Recipe) -> ModelConfig:
    """Return the model as its checkpoint describes it after this recipe: blind, or trained with clean first actions.

    Raises:
        RecipeError: If a chunk has fewer actions than the recipe's `prefix_actions_max`.
    """
    from xwam.training.recipes import RecipeError

    if recipe.prefix_actions_max >= model.num_actions:
        raise RecipeError(
            f"prefix_actions_max={recipe.prefix_actions_max} leaves nothing to learn of a chunk of {model.num_actions} "
            f"actions; give at most {model.num_actions - 1}."
        )
    model = replace(model, prefix_actions_max=recipe.prefix_actions_max)
    if not recipe.blind or model.blind:
        return model
    return replace(model, name=f"{model.name}-blind", blind=True)


def _run(trainer: Trainer, until_s: float | None, bar: Bar) -> int:
    recipe = trainer.recipe
    try:
        with _stopping_at_signals(trainer) as signals, bar("train") as on_progress:
            trainer.run(until_s=until_s, on_progress=on_progress)
    except OSError as error:
        saved = trainer.saved_step
        kept = f"the state after step {saved}" if saved else "no state yet"
        raise OSError(
            f"{error}; training stopped after step {trainer.step}. {trainer.folder} keeps {kept}. Remove the cause; "
            f"then the same command {'continues from there' if saved else 'starts from the beginning'}."
        ) from error
    if signals and trainer.step < recipe.num_steps:
        print(f"{signals[0].name}: stopped after step {trainer.step}, saved; the same command continues from there.")
        return 128 + signals[0]
    return 0


@contextmanager
def _stopping_at_signals(trainer: Trainer) -> Iterator[list[signal.Signals]]:
    """Let SIGTERM and Ctrl-C end a training after its step, saved; yield the list of received signals.

    A second signal ends the training at once. With several devices the first one does: they would stop in different
    steps and wait for one another.
    """
    received: list[signal.Signals] = []
    alone = trainer.accelerator.num_processes == 1
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT) if alone}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, _: Any) -> None:
        received.append(signal.Signals(number))
        trainer.asked_to_stop = True
        restore()

    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        restore()


def _bounds(data_dir: Path, scanned: Scan, model: ModelConfig, *, raw: bool, least_action: float) -> tuple[Bounds, str]:
    """Return the bounds of a data set for a fresh model, and what they are of, as `_other_data` does."""
    from xwam.robots.actions import training_bounds

    path = data_dir / "statistics.json"
    if not path.is_file():
        raise ValueError(f"There is no {path}; run `xwam statistics {data_dir}` first.")
    try:
        statistics = json.loads(path.read_text())
        bounds = training_bounds(statistics, model.arms, raw=raw, least_action=least_action)
    except ValueError as error:
        problem = str(error).rstrip(".")
        raise ValueError(
            f"{path} cannot be used: {problem}; run `xwam statistics {data_dir}` to replace it."
        ) from error
    return bounds, _other_data(statistics, data_dir, scanned)


def _other_data(statistics: Mapping[str, Any], data_dir: Path, scanned: Scan) -> str:
    """Return which data the statistics were computed from if it is not this data set; else empty.

    Statistics do not read videos, so their count may include episodes with broken videos.
    """
    from evalkit.dataset.statistics import data_sha256

    about = statistics.get("about")
    if not isinstance(about, dict) or "episodes" not in about:
        return ""
    held, taken = (len(scanned.lengths), sum(scanned.lengths.values())), (about["episodes"], about.get("frames"))
    if taken == held or held[0] < taken[0] <= held[0] + len(scanned.broken):
        if about.get("data_sha256") in (None, data_sha256(data_dir)):
            return ""
        return "a statistics.json of this data before its states or actions changed"
    return (
        f"a statistics.json of other data ({taken[0]} episodes, {taken[1]} frames; "
        f"here are {held[0]} episodes, {held[1]} frames)"
    )


# ---- the pixel decoder


def train_pixel_decoder(
    data_dir: Path,
    checkpoint: str,
    out: Path,
    recipe: DecoderRecipe,
    *,
    num_episodes: int,
    command: str = "",
    bar: Bar = no_bar,
) -> None:
    """Train a pixel decoder and write it together with its network.

    Args:
        data_dir: The data set.
        checkpoint: The trained network; its decoder, if it has one, is trained further.
        out: File to write.
        recipe: All numbers of the training.
        num_episodes: Episodes to train on, at most.
        command: What the user typed, for the notes.
        bar: Opens a progress bar.

    Raises:
        ValueError: If data, network and recipe do not fit, or LPIPS is asked for and cannot be loaded.
    """
    from xwam.checkpoints.bundle import load_bundle, save_checkpoint
    from xwam.checkpoints.hub import locate
    from xwam.checkpoints.metadata import network_notes, read_notes
    from xwam.training.check_data import check_fit
    from xwam.training.decoder import check_model
    from xwam.training.trainer import data_sha256

    _check_decoder_request(out, recipe)
    bundle, notes = load_bundle(checkpoint), read_notes(locate(checkpoint))
    check_model(bundle.model)
    out.parent.mkdir(parents=True, exist_ok=True)
    scanned = scan_data(data_dir, bar, prefix=LEFT_OUT)
    check_fit(data_dir, scanned, bundle.model)
    trainings = decoder_trainings(notes) if bundle.decoder else []
    sha256 = data_sha256(data_dir, scanned.lengths)
    trainings.append({"command": command, "steps": recipe.num_steps, "data_sha256": sha256})
    stored = bundle.network.dtype
    episodes = _predicted_episodes(data_dir, scanned, bundle, recipe, num_episodes=num_episodes, bar=bar)
    decoder = _trained_decoder(bundle, episodes, recipe, bar)
    notes = network_notes(notes) | {
        "decoder_steps": str(sum(each["steps"] for each in trainings)),
        "decoder_trainings": json.dumps(trainings),
    }
    save_checkpoint(out, bundle.network.cast(stored), bundle.model, decoder=decoder.weights(), notes=notes)


def _check_decoder_request(out: Path, recipe: DecoderRecipe) -> None:
    """Raise ValueError, before anything is read, if LPIPS cannot be loaded or the output is a folder."""
    from xwam.training.decoder import perceptual_distance

    if recipe.perceptual_weight:
        perceptual_distance()
    if out.is_dir():
        raise ValueError(f"{out} is a folder; name the file to write, for example {out}/nano.safetensors.")


def _predicted_episodes(
    data_dir: Path, scanned: Scan, bundle: Bundle, recipe: DecoderRecipe, *, num_episodes: int, bar: Bar
) -> list[ReadEpisode]:
    """Return the episodes to learn from, with the network's predictions, which it makes in float32."""
    import torch

    from xwam.training.clips import ClipDataset
    from xwam.training.decoder import Episodes, choose, read_episodes

    clips = ClipDataset.for_model(
        data_dir, scanned.lengths, bundle.model, crop_frac=1.0, past_end="hold", augmentation=None, exact_depth=True
    )
    keys = choose(scanned, num_episodes, recipe)
    print(f"{scanned.describe()}; {len(keys)} to learn from")
    bundle.network.cast(torch.float32)
    with bar("predict episodes") as on_progress:
        episodes = read_episodes(Episodes(clips, bundle, recipe), keys, on_progress=on_progress)
    if not episodes:
        raise ValueError(f"{data_dir} holds no episode that a decoder can learn from.")
    return episodes


def _trained_decoder(bundle: Bundle, episodes: Sequence[ReadEpisode], recipe: DecoderRecipe, bar: Bar) -> PixelDecoder:
    """Return the checkpoint's decoder, or a fresh one, after training on the episodes."""
    from xwam.codecs.patch_dct import PatchDCT
    from xwam.nano.pixel_decoder import PixelDecoder
    from xwam.training.decoder import draw_examples, fresh_decoder, train_decoder

    assert isinstance(bundle.codec, PatchDCT), "`check_model` requires it"
    decoder = PixelDecoder.from_weights(bundle.decoder) if bundle.decoder else fresh_decoder(recipe.seed)
    examples = draw_examples(episodes, bundle.model, bundle.codec, recipe)
    with bar("train") as on_progress:
        train_decoder(decoder, examples, recipe, on_progress=on_progress)
    return decoder


def decoder_trainings(notes: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return how a decoder was trained, in order: command, steps, hash of all usable episodes of the data.

    Older notes hold the last command and the total number of steps; they count as one training on unknown data.

    Example:
        >>> decoder_trainings({"decoder_command": "xwam train-decoder a b c", "decoder_steps": "7"})
        [{'command': 'xwam train-decoder a b c', 'steps': 7, 'data_sha256': None}]
    """
    if "decoder_trainings" in notes:
        return json.loads(notes["decoder_trainings"])
    if "decoder_command" not in notes:
        return []
    steps = int(notes.get("decoder_steps", 0))
    return [{"command": notes["decoder_command"], "steps": steps, "data_sha256": None}]
