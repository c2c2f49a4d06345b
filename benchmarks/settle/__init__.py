"""How often settling ships what it should not, and how many trials it saves."""
