"""Expectation suites: read from YAML, run by Great Expectations, told as a `QualityReport` and as a page."""
