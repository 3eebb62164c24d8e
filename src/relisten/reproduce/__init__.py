"""`relisten reproduce`: the paper's ablation at tiny scale, from training the base to one page with everything."""
