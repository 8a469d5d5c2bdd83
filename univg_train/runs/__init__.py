"""One training run: settings, folder, resume, saving."""
