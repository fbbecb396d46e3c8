"""Text tokens of prompts: distinct rows, and how often each occurs.

In: the rows of all text places, as an encoder gives them. Out: `TextTokens`, of which cross-attention reads each
distinct row once.
Read next: `encoders.py`, which makes them; `xwam/network/transformer.py`, which reads them.

Rows that are equal to the bit have equal keys and values. Attention over n equal keys is attention over one of them
with log n added to its logits: the same softmax with fewer terms.

Letters: B prompts, N text places, M distinct rows, W text width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_WEIGHT_ERROR = 1e-3
"""Largest relative error of a row's count; where one logit is coarser than that, two rows share the count."""


@dataclass(frozen=True, eq=False)
class TextTokens:
    """The text of prompts as the network reads it.

    Attributes:
        rows_BMW: Distinct rows in the order of their first places; prompts with fewer rows are filled up with zeros.
        counts_BM: Number of places of each row, on the CPU; 0 for rows that only fill up. None if all are 1.
    """

    rows_BMW: Tensor
    counts_BM: Tensor | None = None

    @classmethod
    def merged(cls, places_BNW: Tensor) -> TextTokens:
        """Return the text of prompts whose N places are given; rows are merged if they are equal to the bit.

        Example:
            >>> text = TextTokens.merged(torch.tensor([[[1.0], [0.0], [0.0], [0.0]]]))
            >>> text.rows_BMW.tolist(), text.counts_BM.tolist()
            ([[[1.0], [0.0]]], [[1, 3]])
        """
        return cls.cat([_merged(places_NW) for places_NW in places_BNW])

    @classmethod
    def cat(cls, texts: Sequence[TextTokens]) -> TextTokens:
        """Return several texts as one batch."""
        most = max(text.rows_BMW.shape[1] for text in texts)
        plain = all(text.counts_BM is None and text.rows_BMW.shape[1] == most for text in texts)
        rows = [F.pad(text.rows_BMW, [0, 0, 0, most - text.rows_BMW.shape[1]]) for text in texts]
        counts = [F.pad(text.counts(), [0, most - text.rows_BMW.shape[1]]) for text in texts]
        return cls(torch.cat(rows), None if plain else torch.cat(counts))

    @property
    def num_places(self) -> tuple[int, ...]:
        """Return N of each prompt."""
        return tuple(self.counts().sum(1).tolist())

    @property
    def num_bytes(self) -> int:
        """Return the memory of rows and counts."""
        return self.rows_BMW.nbytes + (0 if self.counts_BM is None else self.counts_BM.nbytes)

    def counts(self) -> Tensor:
        """Return the number of places of each row, B,M."""
        if self.counts_BM is not None:
            return self.counts_BM
        return torch.ones(self.rows_BMW.shape[:2], dtype=torch.int64)

    def places(self) -> Tensor:
        """Return the rows of all places, B,N,W; equal rows stand next to each other.

        Example:
            >>> TextTokens.merged(torch.tensor([[[1.0], [0.0], [1.0]]])).places().tolist()
            [[[1.0], [1.0], [0.0]]]
        """
        counts = self.counts().to(self.rows_BMW.device)
        return torch.stack([rows.repeat_interleave(n, 0) for rows, n in zip(self.rows_BMW, counts, strict=True)])

    def to(self, device: str | torch.device) -> TextTokens:
        """Return the text with its rows on a device."""
        return replace(self, rows_BMW=self.rows_BMW.to(device))


def _merged(places_NW: Tensor) -> TextTokens:
    """Return the text of one prompt."""
    places_of: dict[bytes, list[int]] = {}
    for place, row in enumerate(places_NW.detach().cpu().contiguous().view(torch.uint8).numpy()):
        places_of.setdefault(row.tobytes(), []).append(place)
    if len(places_of) == len(places_NW):
        return TextTokens(places_NW[None])
    first = torch.tensor([places[0] for places in places_of.values()], device=places_NW.device)
    return TextTokens(places_NW[first][None], torch.tensor([[len(places) for places in places_of.values()]]))


class ReadRows(NamedTuple):
    """The rows that attention reads, B,M,W, and the logit of each, B,M float32; None where all logits are 0."""

    rows_BMW: Tensor
    logits_BM: Tensor | None


def read_rows(text: TextTokens, dtype: torch.dtype) -> ReadRows:
    """Return the rows of a text with the logarithms of their counts.

    Attention takes logits in the type of its matrices. A count of 300 is wrong by up to 1.6 % in bfloat16, so there a
    second, equal row has what the first one leaves of the count.

    Args:
        text: The prompts.
        dtype: Type in which attention takes the logits.
    """
    rows_BMW = text.rows_BMW
    if text.counts_BM is None:
        return ReadRows(rows_BMW, None)
    counts_BM = text.counts_BM.double()
    logits_BM = _at_most(counts_BM.log(), dtype)
    rest_BM = (counts_BM - logits_BM.double().exp()).clamp(min=0)
    split = (rest_BM > MAX_WEIGHT_ERROR * counts_BM).any(0).nonzero()[:, 0]
    if len(split):
        logits_BM = torch.cat([logits_BM, _at_most(rest_BM[:, split].log(), dtype)], dim=1)
        rows_BMW = torch.cat([rows_BMW, rows_BMW[:, split.to(rows_BMW.device)]], dim=1)
    return ReadRows(rows_BMW, logits_BM.float().to(rows_BMW.device))


def _at_most(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return numbers rounded down to a type; to the nearest in float32, whose steps are fine enough."""
    rounded = x.to(dtype)
    if dtype == torch.float32:
        return rounded
    return torch.where(rounded.double() > x, torch.nextafter(rounded, torch.full_like(rounded, -math.inf)), rounded)
