"""Layers, bodies, networks of many members, indexers and prior functions."""

from enn_ensembles.networks.bodies import BODIES
from enn_ensembles.networks.bodies import Body
from enn_ensembles.networks.bodies import body_shapes
from enn_ensembles.networks.bodies import check_body
from enn_ensembles.networks.bodies import choose_body
from enn_ensembles.networks.bodies import forward
from enn_ensembles.networks.bodies import make_body
from enn_ensembles.networks.bodies import make_mlp
from enn_ensembles.networks.bodies import make_resnet
from enn_ensembles.networks.bodies import without_input_dropout
from enn_ensembles.networks.bodies import without_norms
from enn_ensembles.networks.images import AveragePool
from enn_ensembles.networks.images import Conv2D
from enn_ensembles.networks.images import GlobalAveragePool
from enn_ensembles.networks.images import MaxPool
from enn_ensembles.networks.indexers import EnsembleIndexer
from enn_ensembles.networks.indexers import GaussianIndexer
from enn_ensembles.networks.indexers import noise_indexer
from enn_ensembles.networks.indexers import number_indices
from enn_ensembles.networks.indexers import PrngIndexer
from enn_ensembles.networks.layers import apply_layers
from enn_ensembles.networks.layers import Dense
from enn_ensembles.networks.layers import Dropout
from enn_ensembles.networks.layers import dropout_shapes
from enn_ensembles.networks.layers import first_layout
from enn_ensembles.networks.layers import ForwardPass
from enn_ensembles.networks.layers import Residual
from enn_ensembles.networks.layers import Shape
from enn_ensembles.networks.layers import shapes_along
from enn_ensembles.networks.members import flatten_members
from enn_ensembles.networks.members import forward_members
from enn_ensembles.networks.members import get_weights
from enn_ensembles.networks.members import Layers
from enn_ensembles.networks.members import make_member_network
from enn_ensembles.networks.members import member_mean_squares
from enn_ensembles.networks.members import network_from_indices
from enn_ensembles.networks.members import network_of_members
from enn_ensembles.networks.members import pick_members
from enn_ensembles.networks.members import StackedBody
from enn_ensembles.networks.members import start_statistics
from enn_ensembles.networks.norms import Norm
from enn_ensembles.networks.parameters import column_means
from enn_ensembles.networks.parameters import column_scales
from enn_ensembles.networks.parameters import draw_parameters
from enn_ensembles.networks.parameters import initializer
from enn_ensembles.networks.parameters import LayerShape
from enn_ensembles.networks.priors import with_additive_prior
from enn_ensembles.networks.priors import with_body_prior
from enn_ensembles.networks.products import affine
from enn_ensembles.networks.products import mix
from enn_ensembles.networks.random_draws import draw_bits
from enn_ensembles.networks.random_draws import fold_in_many
from enn_ensembles.networks.random_draws import in_halves
from enn_ensembles.networks.random_draws import uniform_at
from enn_ensembles.networks.variance_heads import with_variance_head

__all__ = [
    'AveragePool',
    'BODIES',
    'Body',
    'Conv2D',
    'Dense',
    'Dropout',
    'EnsembleIndexer',
    'ForwardPass',
    'GaussianIndexer',
    'GlobalAveragePool',
    'LayerShape',
    'Layers',
    'MaxPool',
    'Norm',
    'PrngIndexer',
    'Residual',
    'Shape',
    'StackedBody',
    'affine',
    'apply_layers',
    'body_shapes',
    'check_body',
    'choose_body',
    'column_means',
    'column_scales',
    'draw_bits',
    'draw_parameters',
    'dropout_shapes',
    'first_layout',
    'flatten_members',
    'fold_in_many',
    'forward',
    'forward_members',
    'get_weights',
    'in_halves',
    'initializer',
    'make_body',
    'make_member_network',
    'make_mlp',
    'make_resnet',
    'member_mean_squares',
    'mix',
    'network_from_indices',
    'network_of_members',
    'noise_indexer',
    'number_indices',
    'pick_members',
    'shapes_along',
    'start_statistics',
    'uniform_at',
    'with_additive_prior',
    'with_body_prior',
    'with_variance_head',
    'without_input_dropout',
    'without_norms',
]
