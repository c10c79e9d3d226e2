"""How fast agents train, and what the machine allows."""
