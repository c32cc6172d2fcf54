"""What travels on the wire: messages, codes, codecs and framings. Pure: no I/O, no clock, no randomness."""
