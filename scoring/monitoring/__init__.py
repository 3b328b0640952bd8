"""Watches what was published: samples, drift against a reference, performance once labels are there, a decision."""
