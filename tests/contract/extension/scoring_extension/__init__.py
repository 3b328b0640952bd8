"""A package as others would write it: `scoring` finds it by the entry points of its distribution."""
