"""The embedded engine: one node, no network. It is also the verified fake of every test that needs an engine."""
