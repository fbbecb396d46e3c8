"""Where predictions and ground truth come from: recorded runs, data sets, image files."""
