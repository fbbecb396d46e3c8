"""Demonstrations of a bench's experts, and episodes of any policy, as a data set.

In: nothing. Out: the package.
Read next: `plan.py`, which episodes a data set lacks; `workers.py`, which records them.
"""
