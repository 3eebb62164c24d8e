"""Evaluation: benchmarks, a runner that survives anything, and scores that say how they were made."""
