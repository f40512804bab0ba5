"""Several runs as one: sweeps, and studies with the claims of a paper on top."""
