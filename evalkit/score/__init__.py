"""Scoring: predictions against the ground truth that the same actions brought about.

In: the clips of a run, two folders of frames, or recorded episodes. Out: a table of numbers, each with a status.
Read next: `run.py`, the main path; `metrics/image.py`, `metrics/depth.py`, `metrics/cloud.py`, `metrics/pose.py`,
one pure function per metric.
"""
