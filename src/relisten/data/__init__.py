"""Training data: simulated scenes with exact truth, and the questions made from it."""
