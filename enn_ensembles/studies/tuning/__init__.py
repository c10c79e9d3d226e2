"""Settings of agents chosen by held-out labels, on seeds that no board uses."""
