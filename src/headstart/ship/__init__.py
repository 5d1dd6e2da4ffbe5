"""Keep a model and use it."""
