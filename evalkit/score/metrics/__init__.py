"""Metrics: images, depth, clouds, poses, LPIPS.

In: nothing. Out: the package.
Read next: `image.py`, `depth.py`, `cloud.py` and `pose.py`, one pure function per metric; `lpips.py`.
"""
