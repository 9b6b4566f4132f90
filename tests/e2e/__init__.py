"""End to end on a real kind cluster, with docker, kind and kubectl from PATH."""
