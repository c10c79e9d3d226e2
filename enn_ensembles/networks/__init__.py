"""Layers, networks of many members, indexers and prior functions."""

from enn_ensembles.networks.indexers import EnsembleIndexer
from enn_ensembles.networks.indexers import GaussianIndexer
from enn_ensembles.networks.indexers import PrngIndexer
from enn_ensembles.networks.mlp import Layers
from enn_ensembles.networks.mlp import make_member_network
from enn_ensembles.networks.mlp import network_from_indices
from enn_ensembles.networks.mlp import stacked_forward
from enn_ensembles.networks.mlp import StackedMLP
from enn_ensembles.networks.parameters import column_scales
from enn_ensembles.networks.parameters import draw_parameters
from enn_ensembles.networks.parameters import LayerShape
from enn_ensembles.networks.parameters import mlp_shapes
from enn_ensembles.networks.products import affine
from enn_ensembles.networks.priors import with_additive_prior

__all__ = [
    'EnsembleIndexer',
    'GaussianIndexer',
    'LayerShape',
    'Layers',
    'PrngIndexer',
    'StackedMLP',
    'affine',
    'column_scales',
    'draw_parameters',
    'make_member_network',
    'mlp_shapes',
    'network_from_indices',
    'stacked_forward',
    'with_additive_prior',
]
