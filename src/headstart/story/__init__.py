"""7. The order of everything: open, look, plan, fit, prove, publish, grow, compare."""
