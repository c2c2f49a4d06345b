"""The first minutes of a study: what model and rows are, the files that a study begins with."""
