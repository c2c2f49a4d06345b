"""The GPU half of the benchmark: steps, their cost and their memory on one CUDA device."""
