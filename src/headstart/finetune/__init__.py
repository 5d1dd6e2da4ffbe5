"""5. What is trained step by step, from a cut point."""
