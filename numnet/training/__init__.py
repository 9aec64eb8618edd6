"""Training: optimisers, schedules, recipes, the loop, evaluation, sweeps. No arithmetic on activations."""
