"""Training: from clips to a checkpoint, killed and resumed without a trace.

In: a data set, a recipe, weights to start from or none. Out: a folder with checkpoint, curve and all that made it.
Read next: `recipes.py` for the numbers, `trainer.py` for the loop.
"""
