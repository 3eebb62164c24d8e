"""Engines decode; see `base` for the seam, `drive` for the one way to get an answer out of one."""
