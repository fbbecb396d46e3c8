"""Checkpoints: metadata, tensors, and the layouts of the release, of Wan2.2 and of diffusers.

In: nothing. Out: the package.
Read next: `bundle.py`, which reads a model; `convert.py`, which writes it in another layout.
"""
