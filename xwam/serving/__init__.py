"""Serving: one request through the whole model, and its speed.

In: nothing. Out: the package.
Read next: `engine.py`, the way of a request; `finisher.py`, from latents to a prediction.
"""
