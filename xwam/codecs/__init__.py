"""Codecs: RGB and depth frames to latents and back.

In: nothing. Out: the package.
Read next: `codec.py`, the protocol; `wan_vae.py` and `patch_dct.py`, the two codecs.
"""
