"""Measure throughput settings on this machine: `settings` says which, `measure` runs them."""
