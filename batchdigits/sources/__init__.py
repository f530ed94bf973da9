"""Find the files to read, and tell whether they stay as found."""
