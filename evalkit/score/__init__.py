"""Scoring: what was imagined, held against what the very same actions brought about.

In: the clips of a run, or two folders of frames. Out: one table of named numbers, each with its outcome.
Read next: `run.py`, the way through; `metrics/image.py`, `metrics/depth.py`, `metrics/cloud.py`, `metrics/pose.py`,
one pure function a metric.
"""
