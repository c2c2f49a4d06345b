"""What is optimized: the loss that training, validation and scoring share."""
