"""Run records: written, read, scored again, and the files of responses."""
