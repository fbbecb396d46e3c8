"""The command `evalkit`: one file for each group of verbs."""
