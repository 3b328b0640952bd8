"""The algebra of steps: each maps a `Batch` to a `Batch`. Knows neither Spark nor files."""
