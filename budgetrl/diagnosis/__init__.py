"""What goes wrong in a run, by rules that look at its numbers alone."""
