"""What carries publications between nodes and outlives one: a contract, and an implementation for each engine."""
