"""Command lines: flags in, one call into the package, an exit code out."""
