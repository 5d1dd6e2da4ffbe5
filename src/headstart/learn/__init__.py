"""From features to a model: which taps, which head, how strong a penalty."""
