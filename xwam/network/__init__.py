"""The transformer: layers, the network, and a slow reference of the released algorithm."""
