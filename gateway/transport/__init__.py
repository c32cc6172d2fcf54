"""Sockets, TLS, HTTP and WebSocket framing. Nothing here knows what a channel is."""
