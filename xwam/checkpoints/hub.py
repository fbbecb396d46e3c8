"""From the name of a checkpoint to its path: shipped weights, files and folders, ids on the Hugging Face hub.

In: a name. Out: a path; files from the hub are fetched first.
Read next: `metadata.py` for what lies there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from xwam.checkpoints.metadata import MODEL_FILE, MODEL_JSON, CheckpointError

SHIPPED = {"nano": Path(__file__).parents[1] / "nano" / "weights" / "nano.safetensors"}
"""Weights that come along, by name; `xwam/nano/weights/README.md` says how they were made."""


WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".json", ".yaml")
"""A name that ends in one of these is that of a file here, not an id on the hub."""


def locate(name: str, *, header_only: bool = False) -> Path:
    """Return the path of a checkpoint; an id on the hub (`owner/name`, or `owner/name/folder`) is fetched first.

    `nano` is the one that comes along.

    What the repository holds is listed before anything is fetched, and one experiment of it is.

    Args:
        name: A name in `SHIPPED`, a path or an id.
        header_only: Fetch only what `read_model` needs.

    Raises:
        CheckpointError: If there is neither a path nor a hub that answers, or the id holds several experiments.
    """
    if name in SHIPPED:
        return SHIPPED[name]
    if Path(name).exists():
        return Path(name)
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:/([\w./-]+?))?/?", name)
    if match is None or name.startswith((".", "/")) or name.endswith(WEIGHT_SUFFIXES):
        raise CheckpointError(f"There is no checkpoint at {name}.")
    repo, folder = match[1], match[2] or ""
    try:
        files = _listed(repo)
        inside = _only_experiment(files, folder, name)
        place = f"{inside}/" if inside else ""
        wanted = [f"{place}*"]
        if header_only:
            light = [file for file in ("config.yaml", MODEL_JSON) if place + file in files]
            wanted = [place + file for file in light or [MODEL_FILE]]
        return _fetched(repo, wanted) / inside
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"'{name}' is no path on this machine, and as an id on the Hugging Face hub it could not be fetched "
            f"({type(error).__name__}); without a network, download {repo} elsewhere and give the folder's path."
        ) from error


def _listed(repo: str) -> list[str]:
    """Return the files of a repository on the hub; without a network, those that were fetched from it before."""
    import huggingface_hub

    try:
        return list(huggingface_hub.list_repo_files(repo))
    except Exception:
        try:
            kept = Path(huggingface_hub.snapshot_download(repo, local_files_only=True))
        except Exception:
            kept = None
        if kept is None:
            raise
        return [file.relative_to(kept).as_posix() for file in kept.rglob("*") if file.is_file()]


def _fetched(repo: str, patterns: list[str]) -> Path:
    import huggingface_hub

    return Path(huggingface_hub.snapshot_download(repo, allow_patterns=patterns))


def _only_experiment(files: Sequence[str], folder: str, name: str) -> str:
    """Return the folder of the one checkpoint in or under a folder of a repository, "" for its root."""
    headers = ("config.yaml", MODEL_FILE, MODEL_JSON)
    found = {file.rpartition("/")[0] for file in files if file.rpartition("/")[2] in headers}
    if folder in found:
        return folder
    below = sorted(place for place in found if not folder or place.startswith(f"{folder}/"))
    if len(below) == 1:
        return below[0]
    owner_and_name = name.rstrip("/").removesuffix(f"/{folder}") if folder else name.rstrip("/")
    choices = ", ".join(f"'{owner_and_name}/{place}'" for place in below) or "none"
    raise CheckpointError(f"'{name}' holds {len(below)} experiments; name one of them: {choices}.")
