"""What the gateway decides: sessions, channels, permissions, who gets what. Pure: time and randomness are arguments."""
