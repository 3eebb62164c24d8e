"""Questions written by language models: captions, question and reasoning, verdicts (`relisten.llm` asks them)."""
