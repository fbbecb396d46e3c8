"""Names of metrics, subjects and statuses: the documentation defines each of them.

In: `docs/scoring.md`, `evalkit/score/results/names.py`. Out: a verdict.
Read next: `evalkit/score/results/names.py`, which lists the names.
"""

from pathlib import Path

from evalkit.score.results.names import METRICS, PREDICTED, SUBJECTS

DOC = (Path(__file__).resolve().parents[2] / "docs/scoring.md").read_text()


def test_the_documentation_has_every_metric_as_defined() -> None:
    for metric in METRICS.values():
        best = {"higher": "high", "lower": "low", "neither": ""}[metric.better]
        definition = metric.definition.replace("|", "\\|")
        assert f"| `{metric.name}` | {best} | {definition} |" in DOC


def test_the_documentation_has_every_subject() -> None:
    assert set(PREDICTED) <= SUBJECTS.keys()
    assert all(f"`{subject}`" in DOC for subject in SUBJECTS)
