"""Models that are none: blind and perfect baselines, and responses replayed from a file."""
