"""How fast, how light and how safe bulkusers is, beside everything else that could be used: `python -m benchmarks`."""
