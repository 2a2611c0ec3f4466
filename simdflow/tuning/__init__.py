"""The design space of a kernel, its measurement, and the choice that is remembered."""
