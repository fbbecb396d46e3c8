"""UWM: one network with independent noise levels of actions and observation, which has five uses.

In: nothing. Out: the package.
Read next: `uses.py`, the five uses; `family.py`, what loader and trainer ask; `policy.py` for `--policy uwm`.
"""
