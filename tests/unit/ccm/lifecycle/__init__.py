"""Tests of the node lifecycle controller."""
