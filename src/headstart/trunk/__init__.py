"""A pre-trained network, and what it says of images."""
