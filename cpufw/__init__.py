"""A pluggable multi-architecture CPU model framework."""

__version__ = "0.1.0"
