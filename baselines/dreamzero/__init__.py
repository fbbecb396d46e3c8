"""DreamZero (arXiv 2602.15922) on Wan2.2: video and actions of one block after another, from a cache of real frames.

In: nothing. Out: the package; importing it loads no framework.
Read next: `config.py` for the sizes, `layout.py` for tokens and mask, `network.py`, `sampler.py`, `policy.py`.
"""
