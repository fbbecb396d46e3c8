"""The ceiling: experts that read the simulator's state.

In: nothing. Out: the package; importing it loads numpy and the contracts only.
Read next: `policy.py`, then `experts.py`.
"""
