"""Zamyatin, Indri, Malhotra & Gärtner, "Is BatchEnsemble a Single Model?"

arXiv 2601.16936: BatchEnsemble, deep ensembles, MC dropout and one network as
classifiers of images. Rows come from a sweep; here they become tables, pictures
and verdicts.
"""
