"""Mixed-precision training, taught by code that proves every number it prints."""
