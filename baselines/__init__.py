"""Policies to compare with, each found by entry point `evalkit.policies`.

In: nothing. Out: the package; importing it loads no framework.
Read next: `floors.py` and `scripted/policy.py`, the floor and the ceiling.
"""
