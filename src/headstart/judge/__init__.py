"""How good, how sure: scores with intervals, cross-validation, calibration, suspected labels."""
