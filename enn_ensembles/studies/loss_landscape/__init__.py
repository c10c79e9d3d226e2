"""The loss landscape of ensembles: Fort, Hu & Lakshminarayanan 2019."""
