"""From rows to tables, pictures and pages; no jax."""
