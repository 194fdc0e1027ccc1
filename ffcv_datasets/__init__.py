"""Image data sets in FFCV's .beton format: written, read, and decoded at the resolution that an epoch asks for."""
