"""Prompts to text tokens.

In: a prompt. Out: text tokens, N,W float32, zeros after the last token.
Read next: `xwam/network/transformer.py`, whose blocks read them by cross-attention.

Letters: N text tokens, W text width.
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
from torch import Tensor

from evalkit.contracts.files import whole_file


class TextEncoder(Protocol):
    """Turns a prompt into `text_len` tokens; guidance compares with those of the empty prompt."""

    def encode(self, prompt: str) -> Tensor:
        """Return N,W text tokens, padded with zeros."""
        ...


class StoredText:
    """Encoded prompts on disk; the encoder is loaded only for a new prompt.

    Args:
        folder: Folder of the files, one for each prompt.
        identity: Identity of encoder and weights, so that several can share the folder.
        make: Loads the encoder.
        shape: N and W.
    """

    def __init__(self, folder: Path, *, identity: str, make: Callable[[], TextEncoder], shape: tuple[int, int]) -> None:
        self.folder, self.identity, self.shape = folder, identity, shape
        self._make = make
        self._encoder: TextEncoder | None = None

    def encode(self, prompt: str) -> Tensor:
        """Return N,W text tokens, from disk if the prompt was encoded before."""
        digest = hashlib.sha256(f"{self.identity}\0{self.shape}\0{prompt}".encode()).hexdigest()
        path = self.folder / f"{digest}.safetensors"
        if not path.is_file():
            self._store(path, prompt)
        tokens = torch.zeros(self.shape)
        stored = load_file(path)["tokens"]
        tokens[: len(stored)] = stored
        return tokens

    def _store(self, path: Path, prompt: str) -> None:
        """Write the tokens of a prompt without the zeros behind them."""
        if self._encoder is None:
            self._encoder = self._make()
        tokens = self._encoder.encode(prompt)
        used = int(tokens.any(dim=1).nonzero().max()) + 1 if tokens.any() else 0
        with whole_file(path, temporary=path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")) as partial:
            save_file({"tokens": tokens[:used].contiguous()}, partial, {"prompt": prompt, "encoder": self.identity})


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

    def encode(self, prompt: str) -> Tensor:
        """Return the tokens of a prompt.

        Raises:
            ValueError: If it has more words than there are tokens.
        """
        words = re.findall(r"\w+|[^\w\s]", prompt.lower())
        if len(words) > self.num_tokens:
            raise ValueError(f"The prompt has {len(words)} words, the model reads {self.num_tokens}: '{prompt}'.")
        tokens = np.zeros((self.num_tokens, self.width), np.float32)
        for index, word in enumerate(words):
            tokens[index] = self._token(word, index)
        return torch.from_numpy(tokens)

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
