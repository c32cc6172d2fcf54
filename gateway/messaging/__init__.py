"""What happens with what clients send: commands to decisions, publications to the broker and on to subscribers."""
