"""A horizontally scaled WebSocket pub/sub gateway that speaks the Centrifugo client protocol."""

__version__ = "0.1.0"
