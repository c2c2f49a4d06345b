"""Full fine-tuning: every parameter of the language model."""
