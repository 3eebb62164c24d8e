"""AudioRouter: which audio tool, if any, should help a frozen model with a question."""
