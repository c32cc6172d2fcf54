"""The load test: finds the limits of a gateway or of a cluster, and proves that nothing was lost."""
