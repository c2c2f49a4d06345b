"""How the base is stored: its modes, their bytes and bits."""
