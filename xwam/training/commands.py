"""The verbs `train` and `train-decoder` of the command `xwam`.

In: parsed arguments. Out: a run folder; mistakes as one sentence.
Read next: `recipes.py` for what `--recipe` takes, `trainer.py`, which does the work.
"""

from __future__ import annotations

import argparse
import inspect
import json
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.dataset.layout import Scan
    from xwam.config import Bounds, ModelConfig
    from xwam.training.trainer import Trainer

PACKAGES = ("accelerate", "matplotlib")
"""What the extra `train` brings."""


def add_verbs(verbs: Any) -> None:
    """Add both to an argument parser's verbs; each sets `run`, which returns the exit status."""
    train = verbs.add_parser("train", help="train on a data set; the same command again goes on from the last save")
    train.add_argument("data", type=Path, help="folder with metadata.json and statistics.json")
    train.add_argument("out", type=Path, help="run folder")
    train.add_argument("--recipe", default="nano", metavar="NAME", help="nano if not given; --recipes lists all")
    train.add_argument("--recipes", action=_ListRecipes, help="list recipes and the settings of --recipe, and stop")
    train.add_argument("--start", help="checkpoint to start from; fresh nano weights if not given")
    train.add_argument("--threads", type=int, help="CPU threads")
    train.add_argument("--minutes", type=float, help="stop, with the state saved, after this long")
    train.add_argument("--dry-run", action="store_true", help="take four steps, save nothing, print time and memory")
    train.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="changes to the recipe, values as JSON or plain text; --recipes lists the keys",
    )
    train.set_defaults(run=train_model)

    decoder = verbs.add_parser(
        "train-decoder", help="train the decoder that draws what a trained network imagines; begins anew when killed"
    )
    decoder.add_argument("data", type=Path, help="folder with metadata.json; episodes that say where cameras are")
    decoder.add_argument("checkpoint", help="the trained network; a decoder beside it is trained on")
    decoder.add_argument("out", type=Path, help="safetensors file: network and decoder")
    decoder.add_argument("--episodes", type=int, default=200, help="episodes to learn from; they are held in memory")
    decoder.add_argument("--steps", type=int, help="steps of the optimizer")
    decoder.add_argument("--learning-rate", type=float, help="at its peak")
    decoder.add_argument("--perceptual", type=float, default=0.0, metavar="WEIGHT", help="of LPIPS (SqueezeNet)")
    decoder.add_argument("--threads", type=int, help="CPU threads")
    decoder.set_defaults(run=train_decoder)


class _ListRecipes(argparse.Action):
    """Prints all recipes, what their settings mean, and those of the recipe named before it; then stops."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, options: argparse.Namespace, *_: Any) -> None:
        from xwam.training.recipes import RECIPES, Recipe, recipe_of

        for each in RECIPES.values():
            print(f"{each.name:<26}{each.num_steps:>6} steps of {each.batch_size} clips at {each.learning_rate:g}")
        print(f"\n{inspect.getdoc(Recipe)}\n\nSettings of {options.recipe}:")
        for key, value in recipe_of(options.recipe).to_json().items():
            print(f"    {key}={json.dumps(value)}")
        parser.exit()


def train_model(options: argparse.Namespace) -> int:
    """Train until the recipe is done or the time is up; return 0."""
    _check_packages()
    import torch

    from evalkit.dataset.layout import read_track, scan
    from xwam.checkpoints.bundle import load_bundle
    from xwam.checkpoints.fresh import fresh_bundle
    from xwam.config import NANO
    from xwam.training.initialise import prepare_for_training
    from xwam.training.recipes import recipe_of
    from xwam.training.trainer import Trainer, prepare_data

    until_s = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = recipe_of(options.recipe, options.set)
    found = scan(options.data)
    for broken in found.broken:
        print(f"left out: {broken.reason}")
    if not found.lengths:
        raise ValueError(f"{options.data} holds no usable episode.")
    other = ""
    started = prepare_for_training(load_bundle(options.start), found, options.data, recipe) if options.start else None
    model: ModelConfig = NANO if started is None else started.model
    if started is None:
        raw = read_track(options.data, next(iter(found.lengths))).raw
        bounds, other = _bounds(options.data, found, model, raw=raw, least_action=recipe.least_action)
        model = replace(model, bounds=bounds)
        if other:
            print(f"warning: {options.data} is normalised by {other}; if not meant, run `xwam statistics` first.")
    if recipe.blind and not model.blind:
        model = replace(model, name=f"{model.name}-blind", blind=True)
    if recipe.depth is not None and recipe.depth != model.network.depth:
        if started is not None:
            raise ValueError(
                f"{options.start} was built for depth '{model.network.depth}', the recipe says '{recipe.depth}'."
            )
        model = replace(model, network=replace(model.network, depth=recipe.depth))
    bundle = fresh_bundle(model, seed=recipe.seed) if started is None else started._replace(model=model)
    data = prepare_data(options.data, found, bundle, recipe)
    if other:
        data = replace(data, description=f"{data.description}; normalised by {other}")
    print(data.description)
    trainer = Trainer(options.out, bundle, data, recipe, command=shlex.join(["xwam", *sys.argv[1:]]))
    if options.dry_run:
        print(trainer.try_out())
        return 0
    try:
        with _stopping_at_signals(trainer) as signals:
            trainer.run(until_s=until_s)
    except OSError as error:
        saved = trainer.saved_step
        kept = f"the state after step {saved}" if saved else "no state yet"
        raise OSError(
            f"{error}; training stopped after step {trainer.step}. {options.out} keeps {kept}; "
            f"once that is mended, the same command {'goes on from there' if saved else 'begins anew'}."
        ) from error
    if signals and trainer.step < recipe.num_steps:
        print(f"{signals[0].name}: stopped after step {trainer.step}, saved; the same command goes on from there.")
        return 128 + signals[0]
    return 0


@contextmanager
def _stopping_at_signals(trainer: Trainer) -> Iterator[list[signal.Signals]]:
    """Let SIGTERM and Ctrl-C end a training after its step, saved; a second one ends it at once. Lends those that came.

    Several devices would stop in different steps and wait for one another, so there the first one ends it at once.
    """
    seen: list[signal.Signals] = []
    alone = trainer.accelerator.num_processes == 1
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT) if alone}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, _: Any) -> None:
        seen.append(signal.Signals(number))
        trainer.asked_to_stop = True
        restore()

    for number in before:
        signal.signal(number, stop)
    try:
        yield seen
    finally:
        restore()


def train_decoder(options: argparse.Namespace) -> int:
    """Train a decoder and write it beside its network; return 0."""
    import torch

    from evalkit.dataset.layout import scan
    from xwam.checkpoints.bundle import load_bundle, save_checkpoint
    from xwam.checkpoints.hub import locate
    from xwam.checkpoints.metadata import network_notes, read_notes
    from xwam.codecs.patch_dct import PatchDCT
    from xwam.nano.pixel_decoder import PixelDecoder
    from xwam.training import decoder as warp
    from xwam.training.check_data import check_fit
    from xwam.training.clips import ClipDataset
    from xwam.training.trainer import data_sha256

    if options.threads:
        torch.set_num_threads(options.threads)
    chosen = {"num_steps": options.steps, "learning_rate": options.learning_rate}
    recipe = warp.DecoderRecipe(
        perceptual_weight=options.perceptual, **{name: value for name, value in chosen.items() if value is not None}
    )
    if options.perceptual:
        warp.perceptual_distance()  # that it cannot be had is known before anything is read
    if recipe.num_steps < 1 or options.episodes < 1:
        raise ValueError(f"--steps and --episodes must be 1 or more, got {recipe.num_steps} and {options.episodes}.")
    if options.out.is_dir():
        raise ValueError(
            f"{options.out} is a folder; name the file to write, for example {options.out}/nano.safetensors."
        )
    bundle, notes = load_bundle(options.checkpoint), read_notes(locate(options.checkpoint))
    warp.check_model(bundle.model)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    found = scan(options.data)
    check_fit(options.data, found, bundle.model)
    clips = ClipDataset.for_model(
        options.data, found.lengths, bundle.model, crop_frac=1.0, past_end="hold", augmentation=None, exact_depth=True
    )
    for broken in found.broken:
        print(f"left out: {broken.reason}")
    keys = warp.choose(found, options.episodes, recipe)
    print(f"{found.describe()}; {len(keys)} to learn from")
    assert isinstance(bundle.codec, PatchDCT), "what `check_model` asked for"
    trainings = decoder_trainings(notes) if bundle.decoder else []
    sha256 = data_sha256(options.data, found.lengths)
    command = shlex.join(["xwam", *sys.argv[1:]])
    trainings.append({"command": command, "steps": recipe.num_steps, "data_sha256": sha256})
    stored = bundle.network.dtype
    bundle.network.cast(torch.float32)
    episodes = warp.read_episodes(warp.Episodes(clips, bundle, recipe), keys)
    if not episodes:
        raise ValueError(f"{options.data} holds no episode that a decoder can learn from.")
    decoder = PixelDecoder.from_weights(bundle.decoder) if bundle.decoder else warp.fresh_decoder(recipe.seed)
    warp.train_decoder(decoder, warp.draw_examples(episodes, bundle.model, bundle.codec, recipe), recipe)
    notes = network_notes(notes) | {
        "decoder_steps": str(sum(training["steps"] for training in trainings)),
        "decoder_trainings": json.dumps(trainings),
    }
    network = bundle.network.cast(stored)
    save_checkpoint(options.out, network, bundle.model, decoder=decoder.weights(), notes=notes)
    return 0


def decoder_trainings(notes: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return how a decoder was trained, in order: command, steps, hash of all usable episodes of the data.

    Notes of before keep the last command and the steps of all trainings alone, which count as one of unknown data.

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


def _check_packages() -> None:
    """Return quietly if what only training needs is installed.

    Raises:
        ValueError: If it is not.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ValueError(f"Training needs {' and '.join(missing)}: pip install -e '.[train]'.")


def _bounds(root: Path, found: Scan, model: ModelConfig, *, raw: bool, least_action: float) -> tuple[Bounds, str]:
    """Return the bounds of a data set for a fresh model, and what else they are of, as `_other_data` does."""
    from xwam.robots.actions import training_bounds

    path = root / "statistics.json"
    if not path.is_file():
        raise ValueError(f"There is no {path}; run `xwam statistics {root}` first.")
    try:
        statistics = json.loads(path.read_text())
        bounds = training_bounds(statistics, model.arms, raw=raw, least_action=least_action)
    except ValueError as error:
        problem = str(error).rstrip(".")
        raise ValueError(f"{path} cannot be used: {problem}; run `xwam statistics {root}` to write it anew.") from error
    return bounds, _other_data(statistics, found)


def _other_data(statistics: Mapping[str, Any], found: Scan) -> str:
    """Return what the statistics beside a data set were taken of, where they say so and it is something else.

    They are taken without a look at videos, so episodes with broken ones may be among theirs.
    """
    about = statistics.get("about")
    if not isinstance(about, dict) or "episodes" not in about:
        return ""
    held, taken = (len(found.lengths), sum(found.lengths.values())), (about["episodes"], about.get("frames"))
    if taken == held or held[0] < taken[0] <= held[0] + len(found.broken):
        return ""
    return (
        f"a statistics.json of other data ({taken[0]} episodes, {taken[1]} frames; "
        f"here are {held[0]} episodes, {held[1]} frames)"
    )
