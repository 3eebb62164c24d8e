"""Audio models that answer by listening again."""
