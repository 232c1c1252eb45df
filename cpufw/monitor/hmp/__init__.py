"""HMP: the monitor for people, one line a command."""
