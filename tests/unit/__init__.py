"""One folder per package, mirroring its modules."""
