"""What a trial will need, before it runs: bytes by part and phase, traced on fake tensors."""
