"""From the name of a checkpoint to its path: shipped weights, files and folders, ids on the Hugging Face hub.

In: a name. Out: a path; files from the hub are fetched first.
Read next: `metadata.py` for what lies there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from evalkit.contracts.env import Finding
from xwam.checkpoints.metadata import (
    MODEL_FILE,
    MODEL_JSON,
    RELEASED_WEIGHTS,
    TEXT_CONFIG,
    TOKENIZER_PLACES,
    CheckpointError,
)
from xwam.families import OWN, family_of, names

HEADERS = ("config.yaml", MODEL_FILE, MODEL_JSON, str(RELEASED_WEIGHTS))
"""A folder with one of these files is a checkpoint."""

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".json", ".yaml")
"""A name with one of these endings is a file on this machine, not an id on the hub."""


class Listing(NamedTuple):
    """The files of a repository.

    Attributes:
        files: Their paths in the repository.
        whole: False if the hub did not answer and only the files that were downloaded before are known.
    """

    files: Sequence[str]
    whole: bool


def locate(name: str, *, header_only: bool = False) -> Path:
    """Return the path of a checkpoint; an id on the hub (`owner/name`, or `owner/name/folder`) is downloaded first.

    The files of the repository are listed first, and only one checkpoint is downloaded. A folder that holds exactly one
    checkpoint stands for it.

    Args:
        name: A shipped name (`nano`, or `FAMILY/NAME`), a path or an id.
        header_only: Download only the files that `read_model` and `find_tokenizer` need.

    Raises:
        CheckpointError: If there is neither a path nor a hub that answers; lists what a folder or repository holds if
            the name does not fit one checkpoint in it.
    """
    if not name:
        raise CheckpointError("The name of the checkpoint is empty; give a path, an id on the hub, or 'nano'.")
    if (path := shipped(name)) is not None:
        return path
    if Path(name).exists():
        return _in_folder(Path(name))
    match = _hub_id(name)
    held = _held_above(Path(name), here=match is None)
    if match is None or held:
        raise CheckpointError(f"There is no checkpoint at {name}{held or '.'}")
    repo, folder = match[1], match[2] or ""
    try:
        inside = _only_checkpoint(listing := list_files(repo), repo, folder)
        prefix = f"{inside}/" if inside else ""
        return fetch(repo, _light_files(listing, prefix) if header_only else [f"{prefix}*"]) / inside
    except CheckpointError:
        raise
    except Exception as error:
        raise not_fetched(name, repo, error) from error


def shipped(name: str) -> Path | None:
    """Return the path of shipped weights, `FAMILY/NAME` or a name of X-WAM's alone; None for other names."""
    family, _, model = name.rpartition("/")
    family = family or OWN
    return family_of(family).shipped.get(model) if family in names() else None


def find_weights(checkpoint: str, ours: Mapping[str, Path], *, untrained: bool, name: str) -> Finding:
    """Return where the weights of a checkpoint are, for `evalkit list`; asks no network.

    Args:
        checkpoint: Its name, path or id.
        ours: Shipped weights of the family by name.
        untrained: Whether the name stands for random weights.
        name: The policy, whose setting names the checkpoint.
    """
    setting = f"policy.{name}.checkpoint"
    if untrained:
        found = f"random ({checkpoint}); {setting} names trained ones"
        return Finding(what="weights", ok=True, found=found, remedy="", needed=False)
    if checkpoint in ours or shipped(checkpoint) is not None:
        return Finding(what="weights", ok=True, found=f"shipped ({checkpoint})", remedy="")
    if Path(checkpoint).exists():
        return Finding(what="weights", ok=True, found=f"on this machine ({checkpoint})", remedy="")
    match = _hub_id(checkpoint)
    if match is None:
        return Finding(what="weights", ok=False, found=f"nothing at {checkpoint}", remedy=f"give {setting}")
    if _is_downloaded(match[1]):
        return Finding(what="weights", ok=True, found=f"downloaded from the Hugging Face hub ({checkpoint})", remedy="")
    found = f"to be downloaded from https://huggingface.co/{match[1]}"
    return Finding(what="weights", ok=False, found=found, remedy="the first run downloads them", needed=False)


def _is_downloaded(repo: str) -> bool:
    """Return whether the hub's cache on this machine has files of a repository."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return any((Path(HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "snapshots").glob("*/*"))


def _light_files(listing: Listing, prefix: str) -> list[str]:
    """Return the files of a checkpoint that hold its configurations and its tokenizer."""
    light = [prefix + file for file in ("config.yaml", MODEL_JSON) if prefix + file in listing.files]
    text = (prefix + TEXT_CONFIG, *(f"{prefix}{place}/" for place in TOKENIZER_PLACES))
    return (light or [prefix + MODEL_FILE]) + [file for file in listing.files if file.startswith(text)]


def not_fetched(name: str, repo: str, error: Exception) -> CheckpointError:
    """Return the error for an id on the hub that could not be fetched."""
    return CheckpointError(
        f"'{name}' is no path on this machine, and as an id on the Hugging Face hub it could not be fetched "
        f"({type(error).__name__}); without a network, download {repo} elsewhere and give the folder's path."
    )


def list_files(repo: str) -> Listing:
    """Return the files of a repository on the hub; without a network, those that were downloaded before."""
    import huggingface_hub

    try:
        return Listing(list(huggingface_hub.list_repo_files(repo)), whole=True)
    except Exception:
        try:
            cached = Path(huggingface_hub.snapshot_download(repo, local_files_only=True))
        except Exception:
            cached = None
        if cached is None:
            raise
        return Listing([file.relative_to(cached).as_posix() for file in cached.rglob("*") if file.is_file()], False)


def fetch(repo: str, patterns: list[str]) -> Path:
    """Return the local folder of a repository after downloading the files that match."""
    import huggingface_hub

    return Path(huggingface_hub.snapshot_download(repo, allow_patterns=patterns))


def _hub_id(name: str) -> re.Match[str] | None:
    """Return owner and name, and the folder, of an id on the hub; None for other names."""
    if name.startswith((".", "/", "~")) or name.endswith(WEIGHT_SUFFIXES):
        return None
    return re.fullmatch(r"([\w.-]+/[\w.-]+)(?:/([\w./-]+?))?/?", name)


def _only_checkpoint(listing: Listing, repo: str, folder: str) -> str:
    """Return the folder of the one checkpoint in or under a folder of a repository, "" for its root."""
    pairs = [(f"/{file}", f"/{header}") for file in listing.files for header in HEADERS]
    found = {file.removesuffix(header).lstrip("/") for file, header in pairs if file.endswith(header)}
    if folder in found:
        return folder
    below = sorted(path for path in found if not folder or path.startswith(f"{folder}/"))
    if len(below) == 1:
        return below[0]
    if not found:
        raise CheckpointError(f"'{repo}' holds no checkpoint: none of {', '.join(HEADERS)} is in it.")
    known = "" if listing.whole else " as far as it was downloaded, and the hub does not answer"
    absent = f"There is no '{repo}/{folder}': " if folder and not below else ""
    choices = below or sorted(found)
    raise CheckpointError(f"{absent}'{repo}' holds {', '.join(choices)}{known}; {_advice(repo, folder, choices)}")


def _in_folder(path: Path) -> Path:
    """Return a path, or the one checkpoint in a folder that is none itself.

    Raises:
        CheckpointError: If there are several.
    """
    if _is_checkpoint(path):
        return path
    if not path.is_dir():
        experiment = next((each for each in path.absolute().parents if _is_released(each)), None)
        if experiment is not None and path.suffix != ".safetensors":
            raise CheckpointError(
                f"{path} is one file of a released experiment; give the experiment's folder {experiment}."
            )
        return path
    found = _checkpoints_in(path)
    if len(found) > 1:
        raise CheckpointError(f"{path} holds {', '.join(found)}; {_advice(path, '', found)}")
    return path / found[0] if found else path


def _checkpoints_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder that are checkpoints."""
    try:
        return sorted(each.name for each in folder.iterdir() if _is_checkpoint(each))
    except OSError:  # no folder, or one that cannot be read
        return []


def _is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is a checkpoint; False where it cannot be read."""
    return _holds_any(folder, HEADERS)


def _is_released(folder: Path) -> bool:
    """Return whether a folder is a released experiment."""
    return _holds_any(folder, ("config.yaml", str(RELEASED_WEIGHTS)))


def _holds_any(folder: Path, files: Sequence[str]) -> bool:
    try:
        return any((folder / file).is_file() for file in files)
    except OSError:  # the folder cannot be read
        return False


def _held_above(path: Path, *, here: bool) -> str:
    """Return the end of a sentence: the closest folder above a path that is a checkpoint or holds some; else empty.

    Args:
        path: Nothing is there.
        here: Whether the working directory counts for a relative path; it does not for an id on the hub.
    """
    below = path.name
    for folder in path.parents:
        if folder == Path() and not here:
            break
        if folder.is_dir() and _is_checkpoint(folder):
            return f"; {folder} is one; give that folder."
        if found := _checkpoints_in(folder):
            return f"; {folder} holds {', '.join(found)}; {_advice(folder, below, found)}"
        below = folder.name
    return ""


def _advice(where: str | Path, name: str, choices: Sequence[str]) -> str:
    """Return the end of a sentence: the choice that a name is closest to, or an example.

    Example:
        >>> _advice("o/x-wam", "robocasa", ["pretrained", "robocasa_sft"])
        "did you mean 'o/x-wam/robocasa_sft'?"
    """
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"did you mean '{where}/{close[0]}'?" if close else f"name one of them, for example '{where}/{choices[-1]}'."
