"""evalkit: how well does a world action model act, and how well does it imagine?

In: a bench and a policy, found by name. Out: a run folder with records, clips, scores and a report.
Read next: `evalkit/cli/main.py` for the verbs, `evalkit/contracts/` for what policies and envs agree on.
"""

__version__ = "0.2.0"
