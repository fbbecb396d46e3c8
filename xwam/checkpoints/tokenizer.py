"""The tokenizer of umT5, which no released checkpoint holds: where it lies, which one it is, whether it fits.

In: the folder of a checkpoint, the setting `tokenizer`. Out: a folder; its hash; transformers' tokenizer.
Read next: `xwam/text/umt5.py`, which uses it; `xwam/policy.py`, which asks for it before a run.

The release takes it from the folder of Wan2.2, where it lies in `google/umt5-xxl` (setting `t5_tokenizer`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from xwam.checkpoints.hub import fetch, not_fetched
from xwam.checkpoints.metadata import TOKENIZER_PLACES, CheckpointError

FILES = ("tokenizer.json", "spiece.model", "tokenizer.model")
"""A folder with one of these files is a tokenizer."""

MORE_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

LFS_POINTER = b"version https://git-lfs"
"""Start of a file that `git clone` leaves in place of a large one without Git LFS."""

PAD_ID, END_ID = 0, 1
"""umT5's ids of padding and of the end of a prompt (google/umt5-xxl, tokenizer.json)."""

HOW = "the Wan2.2 folder, the tokenizer's own folder, or google/umt5-xxl to fetch it from the Hugging Face hub"


def find_tokenizer(checkpoint: Path, setting: str | None = None) -> Path | None:
    """Return the folder of a checkpoint's own tokenizer, or of the one that the setting names; None without both.

    Args:
        checkpoint: The folder of the checkpoint.
        setting: A folder, a file in it, or an id on the hub, which is downloaded.

    Raises:
        CheckpointError: If the setting names no tokenizer.
    """
    own = next((checkpoint / place for place in TOKENIZER_PLACES if _is_tokenizer(checkpoint / place)), None)
    if own is not None or setting is None:
        return own
    if not setting:
        raise CheckpointError(f"The name of the tokenizer is empty; give {HOW}.")
    path = Path(setting)
    folder = path.parent if path.is_file() else path if path.is_dir() else _fetched(setting)
    for candidate in (folder, *(folder / place for place in TOKENIZER_PLACES)):
        if _is_tokenizer(candidate):
            return candidate
    raise CheckpointError(
        f"{setting} holds no tokenizer: neither it nor its {' or '.join(TOKENIZER_PLACES)} holds "
        f"{' or '.join(FILES)}; give {HOW}."
    )


def identity_of(folder: Path) -> str:
    """Return the hash of a tokenizer's files."""
    lines = ""
    for name in sorted((*FILES, *MORE_FILES)):
        if (folder / name).is_file():
            lines += f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
    return f"sha256 of sha256sums {hashlib.sha256(lines.encode()).hexdigest()}"


def load_tokenizer(folder: Path, *, num_embeddings: int | None = None) -> Any:
    """Return transformers' tokenizer of a folder.

    Args:
        folder: From `find_tokenizer`.
        num_embeddings: Tokens that the text encoder knows; None if that is not known before its weights are read.

    Raises:
        CheckpointError: If it cannot be read, is not umT5's, has more tokens than the text encoder, or ftfy is not
            installed.
    """
    if importlib.util.find_spec("ftfy") is None:
        raise CheckpointError(
            "Prompts are cleaned with ftfy, as in the release, and it is not installed; run `pip install -c "
            "constraints.txt -e '.[wan]'`."
        )
    for name in (*FILES, *MORE_FILES):
        _check_file(folder / name)
    tokenizer = _read(folder, identity_of(folder))
    if num_embeddings is not None and len(tokenizer) > num_embeddings:
        raise CheckpointError(
            f"The tokenizer in {folder} has {len(tokenizer)} tokens and the text encoder knows {num_embeddings}; "
            "give the tokenizer of the text encoder."
        )
    return tokenizer


def _check_file(file: Path) -> None:
    """Raise CheckpointError if a file of a tokenizer is there and cannot be used."""
    try:
        content = file.read_bytes()
        if content.startswith(LFS_POINTER):
            raise CheckpointError(f"{file} is a pointer of Git LFS, not the file itself; run `git lfs pull` there.")
        if file.suffix == ".json":
            json.loads(content)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}; give {HOW}.") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not a text file; fetch it again.") from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file} is not JSON ({error}); fetch it again.") from error


@lru_cache(maxsize=1)
def _read(folder: Path, identity: str) -> Any:
    """Return the tokenizer of a folder, read once for the plan and the run; `identity` is the hash of its files.

    Raises:
        CheckpointError: If it cannot be read or is not umT5's.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        last = (tokenizer("open the drawer").input_ids or [None])[-1]
    except Exception as error:  # transformers raises many kinds for files that it cannot read
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"The tokenizer in {folder} cannot be read: {reason.rstrip('.')}; give {HOW}.") from error
    found = (tokenizer.pad_token_id, tokenizer.eos_token_id, last)
    if found != (PAD_ID, END_ID, END_ID):
        raise CheckpointError(
            f"The tokenizer in {folder} is not umT5's: expected pad id {PAD_ID}, end id {END_ID} and prompts that end "
            f"in {END_ID}, got pad id {found[0]}, end id {found[1]} and a prompt that ends in {last}; give {HOW}."
        )
    return tokenizer


def _is_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in FILES)


def _fetched(name: str) -> Path:
    """Return the local folder of a tokenizer's files on the hub.

    Raises:
        CheckpointError: If there is no such repository, or no hub that answers.
    """
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"There is no tokenizer at {name}; give {HOW}.")
    places = ("", *(f"{place}/" for place in TOKENIZER_PLACES))
    try:
        return fetch(name, [place + file for place in places for file in (*FILES, *MORE_FILES)])
    except Exception as error:
        raise not_fetched(name, name, error) from error
