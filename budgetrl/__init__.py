"""budgetrl: the most reinforcement learning out of one rented GPU and a fixed budget."""

__version__ = "0.1.0"
