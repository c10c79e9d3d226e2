"""Random features: how near a network that learns no feature comes."""
