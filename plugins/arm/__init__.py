"""The Arm architectures, 64 and 32 bit."""
