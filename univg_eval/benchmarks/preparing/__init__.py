"""From release files to a prepared benchmark."""
