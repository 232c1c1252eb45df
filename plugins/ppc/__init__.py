"""The PowerPC architectures, 32 and 64 bit."""
