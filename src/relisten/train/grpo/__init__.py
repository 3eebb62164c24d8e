"""Stage 2: group-relative policy optimisation with re-listening (Echo, section 3.3)."""
