"""6. Tasks: what the truth of an image is, what learns it, and how an answer is judged."""
