"""What a result was made with: versions, device, commit."""
