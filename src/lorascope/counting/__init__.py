"""Parameters from the shapes of matrices: adapters, other methods, architectures. No torch."""
