"""From random weights to echo-tiny: exercises and questions on simulated scenes, in stages."""
