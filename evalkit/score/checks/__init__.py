"""Checks on ground truth and predictions: units, axes, orders and cameras that can be guessed wrong.

In: one chunk of frames, states and cameras. Out: findings, each with the name of a check.
Read next: `chunk.py`, which runs them all; the other modules, one pure function per check.
"""
