"""Who is who: tokens, and the keys that they are checked with."""
