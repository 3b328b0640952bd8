"""Partitions in, part files out, and the Delta transaction that publishes them."""
