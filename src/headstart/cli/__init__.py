"""Arguments in, a story called, errors turned into one line and an exit code."""
