"""The fixtures of this folder."""

from tests.cluster.fixtures import cluster, namespace

__all__ = ["cluster", "namespace"]
