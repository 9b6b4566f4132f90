"""Tests and the embedded cluster that they, the demo and the benches share."""
