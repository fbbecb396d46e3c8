"""Flow matching: noise levels, the UniPC solver, the sampler, losses, and real-time chunking.

In: nothing. Out: the package.
Read next: `noise.py`, the noise levels; `sampler.py`, the denoising of a request; `losses.py` for training.
"""
