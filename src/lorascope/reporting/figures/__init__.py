"""One figure a file, as SVG whose bytes depend on the numbers alone."""
