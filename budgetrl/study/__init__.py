"""Several runs as one study, and a look at a model before the money is spent."""
