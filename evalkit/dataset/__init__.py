"""Data sets: one format on disk, one reader, one writer.

In: episodes of a bench, or a folder. Out: the folder that training and scoring read, or its episodes.
Read next: `layout.py`, which reads a folder; `writer.py`, which writes one.
"""
