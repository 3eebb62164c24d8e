"""Training of a router's policy by what its decisions change in the frozen reasoner's answers."""
