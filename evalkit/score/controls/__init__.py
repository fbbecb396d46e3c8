"""Controls of imagination: predictions for something that was not done, and how far they depend on the actions.

In: recorded episodes. Out: other actions and instructions, their ground truth, scores of the dependence.
Read next: `choice.py`, what each control asks for; `dependence.py`, the score.
"""
