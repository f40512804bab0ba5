"""Displays of a run, made from its run directory's files alone."""
