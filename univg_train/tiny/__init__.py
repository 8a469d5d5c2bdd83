"""The tiny reference model: built and trained on two CPU cores."""
