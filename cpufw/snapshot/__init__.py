"""Saved machines: the stream of a snapshot or a migration, and its file. No architecture here."""
