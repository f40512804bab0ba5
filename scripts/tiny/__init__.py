"""The parts of `scripts/make_tiny_model.py`: data, start model, and what is measured of it."""
