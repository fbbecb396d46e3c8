"""Joint attention: actions and states have blocks of their own, and share one self-attention with the video.

In: clips and recipes for training; requests of evalkit. Out: a trained network; replies of evalkit.
Read next: `config.py` for the sizes, `network.py` for the network, `family.py` for its name in `xwam train`.
"""
