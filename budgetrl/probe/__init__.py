"""A look at a model before the money is spent: can reinforcement learning help it on this data?"""
