"""A trained network examined: numbers, tables, pictures, probes."""
