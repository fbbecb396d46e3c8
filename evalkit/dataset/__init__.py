"""Demonstrations on disk: reading, checking, writing and measuring the layout of the released data sets.

In: a folder of episodes. Out: clips ready for training; statistics; new folders.
Read next: `layout.py`, what a folder holds; `xwam/training/clips.py`, what training sees of it.
"""
