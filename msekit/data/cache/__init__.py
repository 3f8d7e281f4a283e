"""Rows ⇄ Arrow tables: schema, fingerprint, lock, atomic build."""
