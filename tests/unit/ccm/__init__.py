"""Mirrors ccm/."""
