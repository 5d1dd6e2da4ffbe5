"""A saved model behind HTTP, and the pages for it; a local page to go through suspected labels."""
