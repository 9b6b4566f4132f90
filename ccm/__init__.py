"""Watches Services and Nodes and keeps one cloud load balancer per Service of type LoadBalancer."""
