"""simdflow: a kernel DSL for neural-network layers on CPUs."""
