"""Recorded demonstrations rendered again, with depth, as a data set.

In: nothing. Out: the package.
Read next: `jobs.py`, which demonstrations are missing; `demos.py`, the files; `render.py`, one demonstration.
"""
