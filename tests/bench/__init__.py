"""Benchmarks: every figure is a ratio of two things timed in turn in one run; absolute times mean nothing elsewhere.

In: modules of this folder, each with `figures()`. Out: a line a figure, and `results/bench.json`.
Read next: `figure.py`, then any other module here.
"""
