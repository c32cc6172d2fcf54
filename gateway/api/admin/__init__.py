"""The admin page: who may see it, what it is made of, and how its scripts reach the node."""
