"""The text encoder of Wan2.2 (umT5); transformers does the work.

In: an encoder of transformers, a tokenizer, prompts. Out: text tokens, N,W float32.
Read next: `encoders.py` for the interface and the store of prompts, `xwam/checkpoints/wan.py` for the weights.

Letters: B prompts, N text tokens, W text width.
"""

from __future__ import annotations

import html
import re
from typing import Any

import torch
from torch import Tensor


class UmT5Text:
    """Encodes prompts with umT5, with zeros behind the last token, as Wan passes them to its transformer.

    Args:
        model: transformers' `UMT5EncoderModel`.
        tokenizer: The tokenizer of `google/umt5-xxl`.
        num_tokens: N; longer prompts are cut, as Wan does.
    """

    def __init__(self, model: Any, tokenizer: Any, *, num_tokens: int) -> None:
        self.model, self.tokenizer, self.num_tokens = model, tokenizer, num_tokens

    def to(self, device: str | torch.device) -> UmT5Text:
        """Move the weights; text tokens come back to the CPU."""
        self.model.to(device)
        return self

    @torch.inference_mode()
    def encode(self, prompt: str) -> Tensor:
        """Return the tokens of a prompt."""
        if self.tokenizer is None:
            raise ValueError(
                "The umT5 text encoder has no tokenizer; put that of google/umt5-xxl into the checkpoint's 'tokenizer'."
            )
        tokens = self.tokenizer(
            [clean(prompt)], padding="max_length", truncation=True, max_length=self.num_tokens, return_tensors="pt"
        )
        return encode_ids(self.model, tokens.input_ids, tokens.attention_mask)[0].cpu()


def encode_ids(model: Any, ids_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """Return B,N,W float32 text tokens of padded token ids; zeros where the mask is 0."""
    ids, mask = ids_BN.to(model.device), mask_BN.to(model.device)
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
    return hidden * mask[..., None]


def clean(prompt: str) -> str:
    """Return a prompt with HTML entities resolved and white space reduced to single blanks.

    Example:
        >>> clean("  open   the drawer &amp; close it ")
        'open the drawer & close it'
    """
    return re.sub(r"\s+", " ", html.unescape(html.unescape(prompt))).strip()
