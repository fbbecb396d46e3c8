"""One request through a whole model, and how fast that is."""
