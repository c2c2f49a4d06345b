"""What is trained: which matrices get an adapter, its layers, and its files."""
