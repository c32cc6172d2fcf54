"""Proxies: what the gateway asks the user's backend about over HTTP (protocol.md 8)."""
