"""A saved model as a file for another runtime, checked there against `predict`."""
