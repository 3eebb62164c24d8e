"""Chat endpoints: what is asked of one, over OpenAI-compatible HTTP, within limits, and never paid twice."""
