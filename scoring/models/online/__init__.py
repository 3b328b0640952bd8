"""How a model learns from rows: its bytes before, the rows, its bytes after. One module per framework."""
