"""Turns model files into frozen data; each format is read lazily, by a module of its own."""
