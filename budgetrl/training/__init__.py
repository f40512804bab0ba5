"""Training: one worker process that turns a run directory with a recipe into a trained adapter."""
