"""Questions written by language models: captions, question and reasoning, verdicts, over OpenAI-compatible HTTP."""
