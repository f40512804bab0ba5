"""Recipes: what a run is made of, read from TOML."""
