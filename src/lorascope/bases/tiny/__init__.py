"""The embedded tiny base, pre-trained here."""
