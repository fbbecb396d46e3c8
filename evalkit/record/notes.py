"""Notes of what gave no episode, so that it is not tried again in vain.

In: what the episode would have said about itself, and why there is none. Out: a text file in the data set.
Read next: `plan.py` and `evalkit/replay/jobs.py`, which leave out what is noted.

A note holds for the same episode only: with another setting, or another content of the file that is replayed, it is
tried again. So is what older versions noted, which did not say for what.
"""

from __future__ import annotations

import json
from pathlib import Path

from evalkit.contracts.files import write_whole
from evalkit.dataset.about import EpisodeAbout


def write_note(path: Path, about: EpisodeAbout, reason: str) -> None:
    """Write a note: a line with the reason, a line of JSON with the episode."""
    write_whole(path, f"{' '.join(reason.split())}\n{json.dumps(about.to_json())}\n")


def is_noted(path: Path, about: EpisodeAbout) -> bool:
    """Return whether there is a note of this very episode."""
    try:
        _, noted = path.read_text().splitlines()
        return not EpisodeAbout.from_json(json.loads(noted)).differences(about, ignore=("replayed_from",))
    except (OSError, ValueError):
        return False
