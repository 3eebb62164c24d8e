"""Stage 1: supervised fine-tuning of a checkpoint on grounded or interleaved reasoning (Echo, section 3.2)."""
