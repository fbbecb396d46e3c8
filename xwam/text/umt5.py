"""The text encoder of Wan2.2 (umT5); transformers does the work.

In: an encoder of transformers, a tokenizer, prompts. Out: `TextTokens`, float32, of all text places.
Read next: `encoders.py` for the interface and the store of prompts, `xwam/checkpoints/wan.py` for the weights,
`xwam/checkpoints/tokenizer.py` for the tokenizer.

The released X-WAM reads umT5's raw output at all 512 places, those behind the prompt too, in training and evaluation
(release, modules/t5.py and runners/xwam_runner.py); Wan2.2 itself reads zeros there. umT5 never reads the places behind
the prompt, and its relative positions fall into 16 buckets to each side, so many of these rows are equal to the bit.

Letters: B prompts, N text places, W text width.
"""

from __future__ import annotations

import html
import math
import re
from typing import Any

import torch
from torch import Tensor

from xwam.text.tokens import TextTokens

EXACT_BUCKETS, BUCKETS, FARTHEST = 8, 16, 128
"""umT5's relative positions to one side: how many distances have their own bucket, the number of buckets, and the first
distance of the last one."""


class UmT5Text:
    """Encodes prompts with umT5, as the released model reads them: the raw output at all text places.

    Args:
        model: transformers' `UMT5EncoderModel`.
        tokenizer: The tokenizer of `google/umt5-xxl`; None if only token ids are to be encoded.
        num_tokens: N; longer prompts are cut, as in the release.
    """

    def __init__(self, model: Any, tokenizer: Any, *, num_tokens: int) -> None:
        self.model, self.tokenizer, self.num_tokens = model, tokenizer, num_tokens

    def to(self, device: str | torch.device) -> UmT5Text:
        """Move the weights; text tokens come back to the CPU."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def encode(self, prompt: str) -> TextTokens:
        """Return the text of one prompt.

        Raises:
            ValueError: If there is no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError(
                "umT5 has no tokenizer; give that of google/umt5-xxl with policy.xwam.tokenizer=FOLDER, "
                "or write it into the checkpoint with `xwam convert --tokenizer FOLDER`."
            )
        tokens = self.tokenizer(
            [clean(prompt)], padding="max_length", truncation=True, max_length=self.num_tokens, return_tensors="pt"
        )
        return TextTokens.merged(encode_ids(self.model, tokens.input_ids, tokens.attention_mask).cpu())


def encode_ids(model: Any, ids_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """Return umT5's output at every place, B,N,W float32.

    Args:
        model: transformers' `UMT5EncoderModel`.
        ids_BN: Token ids.
        mask_BN: 1 for tokens of the prompt, 0 for the places behind it, which no place reads.
    """
    ids, mask = ids_BN.to(model.device), mask_BN.to(model.device)
    return model(input_ids=ids, attention_mask=mask).last_hidden_state.float()


def clean(prompt: str) -> str:
    """Return a prompt as the release cleans it (modules/tokenizers.py, mode `whitespace`).

    Broken encodings are repaired, HTML entities are resolved twice, and white space becomes single blanks.

    Example:
        >>> clean("  open   the drawer &amp;amp; donâ€™t close it ")
        "open the drawer & don't close it"
    """
    import ftfy

    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(prompt)))).strip()


def padding_counts(num_words: int, num_places: int) -> list[int]:
    """Return how many places behind a prompt have the same output of umT5, in the order of the places.

    Two places have the same output if every token of the prompt lies in the same bucket of relative positions.

    Args:
        num_words: Tokens of the prompt, at least 1, the end token included.
        num_places: N.

    Example:
        >>> padding_counts(6, 512)[-2:], len(padding_counts(6, 512)), padding_counts(1, 512)
        ([1, 416], 46, [511])
    """
    if num_words == 1:  # attention over one token gives that token, whatever its distance
        return [num_places - 1] if num_places > 1 else []
    counts: list[int] = []
    for place in range(num_words, num_places):
        distances = range(place - num_words + 1, place + 1)
        if not counts or any(_bucket(distance) != _bucket(distance - 1) for distance in distances):
            counts.append(0)
        counts[-1] += 1
    return counts


def _bucket(distance: int) -> int:
    """Return the bucket of a distance of 0 or more; buckets grow with the logarithm of the distance."""
    if distance < EXACT_BUCKETS:
        return distance
    share = math.log(distance / EXACT_BUCKETS) / math.log(FARTHEST / EXACT_BUCKETS)
    return min(EXACT_BUCKETS + int(share * (BUCKETS - EXACT_BUCKETS)), BUCKETS - 1)
