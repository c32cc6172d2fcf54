"""A small cluster on this machine, to try several nodes: Redis, gateway nodes, HAProxy before them (`make cluster`)."""
