"""What the command line can do: a module for each command, imported when that is asked for."""
