"""Where things lie, how they are written whole, what they are called and made with."""
