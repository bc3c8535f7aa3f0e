"""Reprise inside inference engines: one module per engine, imported by name, none by default."""
