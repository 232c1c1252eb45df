"""What is Arm's own in the formats of others: Firecracker's register bitmaps."""
