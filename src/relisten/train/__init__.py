"""Training: from labelled sound to checkpoints."""
