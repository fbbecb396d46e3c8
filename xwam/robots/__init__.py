"""The robot side of the model: actions, axes, images, and one interface per bench."""
