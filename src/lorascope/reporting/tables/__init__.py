"""One table a file: rows and columns, for people and as CSV."""
