"""Definitions: YAML files, checked in three layers, compiled to an index that loads in no time."""
