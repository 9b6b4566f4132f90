"""Mirrors ccm/kube/."""
