"""From a release's raw files to samples: one module per dataset."""
