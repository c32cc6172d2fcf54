"""What the outside sees of a node: metrics and logs."""
