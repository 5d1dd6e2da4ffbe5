"""Images on disk: what is read as which class and split, and how a file becomes RGB pixels."""
