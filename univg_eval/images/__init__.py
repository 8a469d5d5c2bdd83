"""Images and videos of a benchmark: opening them, and replacing them in control runs."""
