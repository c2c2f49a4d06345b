"""The frozen model: where it comes from, whether its folder is whole, its configuration."""
