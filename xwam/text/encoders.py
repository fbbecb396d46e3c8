"""Prompts to text tokens.

In: a prompt. Out: `TextTokens` of one prompt, float32.
Read next: `tokens.py` for `TextTokens`, `umt5.py` for the encoder of the release.

Letters: N text places, W text width.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from evalkit.contracts.files import whole_file
from xwam.text.tokens import TextTokens


class TextEncoder(Protocol):
    """Turns a prompt into the rows of all text places; guidance compares with those of the empty prompt."""

    def encode(self, prompt: str) -> TextTokens:
        """Return the text of one prompt."""
        ...


STORED_FORMAT = 2
"""Version of the files of `StoredText`, a part of their names; files of version 1 held zeros as padding."""


class StoredText:
    """Encoded prompts on disk; the encoder is loaded only for a new prompt.

    Args:
        folder: Folder of the files, one for each prompt.
        identity: Identity of encoder, weights and tokenizer, so that several can share the folder.
        make: Loads the encoder.
        shape: N and W.
    """

    def __init__(self, folder: Path, *, identity: str, make: Callable[[], TextEncoder], shape: tuple[int, int]) -> None:
        self.folder, self.identity, self.shape = folder, identity, shape
        self._make = make
        self._encoder: TextEncoder | None = None

    def encode(self, prompt: str) -> TextTokens:
        """Return the text of one prompt, from disk if it was encoded before."""
        name = f"{STORED_FORMAT}\0{self.identity}\0{self.shape}\0{prompt}"
        path = self.folder / f"{hashlib.sha256(name.encode()).hexdigest()}.safetensors"
        if not path.is_file():
            self._store(path, prompt)
        stored = load_file(path)
        return TextTokens(stored["rows"], stored.get("counts"))

    def _store(self, path: Path, prompt: str) -> None:
        """Write the distinct rows of a prompt and their counts."""
        if self._encoder is None:
            self._encoder = self._make()
        text = self._encoder.encode(prompt)
        tensors = {"rows": text.rows_BMW.contiguous()} | ({} if text.counts_BM is None else {"counts": text.counts_BM})
        with whole_file(path, temporary=path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")) as partial:
            save_file(tensors, partial, {"prompt": prompt, "encoder": self.identity})


class HashedText:
    """One token for each word: signs drawn by a hash of the word, its letter triples and its position.

    It needs no weights and gives the same numbers on every machine. Words that share letters share part of their token.

    Args:
        num_tokens: N.
        width: W, a multiple of 8.
    """

    def __init__(self, *, num_tokens: int, width: int) -> None:
        if width % 8:
            raise ValueError(f"The width of hashed text must be a multiple of 8, got {width}.")
        self.num_tokens, self.width = num_tokens, width

    def encode(self, prompt: str) -> TextTokens:
        """Return one row a word, then zeros.

        Raises:
            ValueError: If it has more words than there are tokens.
        """
        words = re.findall(r"\w+|[^\w\s]", prompt.lower())
        if len(words) > self.num_tokens:
            raise ValueError(f"The prompt has {len(words)} words, the model reads {self.num_tokens}: '{prompt}'.")
        tokens = np.zeros((self.num_tokens, self.width), np.float32)
        for index, word in enumerate(words):
            tokens[index] = self._token(word, index)
        return TextTokens.merged(torch.from_numpy(tokens)[None])

    def _token(self, word: str, index: int) -> np.ndarray:
        """Return a token with a mean square of 1: half word, a quarter letter triples, a quarter position."""
        marked = f"<{word}>"
        triples = [marked[start : start + 3] for start in range(max(1, len(marked) - 2))]
        letters = sum(signs(f"triple {triple}", self.width) for triple in triples) / np.sqrt(len(triples))
        mixed = np.sqrt(2) * signs(f"word {word}", self.width) + letters + signs(f"place {index}", self.width)
        return mixed / np.sqrt(np.mean(mixed**2))


def signs(text: str, width: int) -> np.ndarray:
    """Return `width` numbers, each -1 or 1, drawn by a hash of the text.

    Example:
        >>> signs("word cube", 8).tolist()
        [1.0, 1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0]
    """
    digest = hashlib.shake_256(text.encode()).digest(width // 8)
    return np.unpackbits(np.frombuffer(digest, np.uint8)).astype(np.float32) * 2 - 1
