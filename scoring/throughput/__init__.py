"""What a run took: seconds, memory and devices, split by split, and whether that is slower than usual."""
