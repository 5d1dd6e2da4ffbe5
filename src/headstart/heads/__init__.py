"""4. Closed-form heads on frozen features: one decomposition, exact leave-one-out."""
