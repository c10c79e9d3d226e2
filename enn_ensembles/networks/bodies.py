"""Bodies: networks as sequences of layers, by name.

A body describes one network; what an index picks or draws is the method's. The
parameter counts below are for images of 32 x 32 x 3 and 10 outputs.

  mlp         dense hidden layers of any sizes
  mlp_dropout the same; training switches off 5 % of the hidden units
  small_cnn   3 x 3 convolutions of 16, 32, 32 channels, each with ReLU and
              max-pool 2; global average; dense 32: 15,722 parameters
  medium_cnn  3 x 3 convolutions of 32, 64 (without padding), 128, 128 channels,
              max-pool 2 behind the first two; global average; dense 32: 245,290
  resnet20    3 stages of 3 blocks, 16, 32, 64 channels: 272,474
  resnet18    4 stages of 2 blocks, 64 to 512 channels, its first convolution
              3 x 3 with stride 1, as for CIFAR: 11,173,962

The residual networks have projections where a block changes its shape (option
B of the paper). He, Zhang, Ren & Sun 2016, "Deep residual learning for image
recognition" (arXiv 1512.03385).
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from enn_ensembles import base
from enn_ensembles import checks
from enn_ensembles.networks import images
from enn_ensembles.networks import layers
from enn_ensembles.networks import norms
from enn_ensembles.networks import parameters


@dataclasses.dataclass(frozen=True)
class Body:
  """One network: its layers, from the input to the outputs.

  Attributes:
    name: what error messages and parameters call it.
    layers: in order.
  """
  name: str
  layers: tuple[layers.Layer, ...]

  @property
  def is_mlp(self) -> bool:
    """Whether it is dense layers alone, whatever their activations.

    Flattening and dropout places may stand between them. Both are the identity
    on vectors for a method that has no training pass of its own.
    """
    # No subclasses: what those do with their weights is not known here.
    return all(type(layer) in (layers.Dense, layers.Dropout, images.Flatten)
               for layer in self.layers)

  @property
  def num_weight_layers(self) -> int:
    """Layers that a layer ensemble gives options, or a trunk shares."""
    return sum(layer.has_options for layer in self.layers)

  def output_shape(self, input_shape: layers.Shape) -> layers.Shape:
    """Shape of the outputs of one example.

    Raises:
      ValueError: a layer does not fit what comes before it.
    """
    return layers.shapes_along(self.layers, input_shape)[-1]

  def weight_shapes(self,
                    input_shape: layers.Shape) -> list[parameters.LayerShape]:
    """All weight arrays in order."""
    return layers.weight_shapes(self.layers, input_shape)

  def weight_layers(self, input_shape: layers.Shape) -> list[int]:
    """Which of the `num_weight_layers` each weight array belongs to."""
    return self._layers_of('weight_shapes', input_shape)

  def statistics_shapes(self, input_shape: layers.Shape) -> list[int]:
    """Channels of every batch norm in order."""
    return layers.statistics_shapes(self.layers, input_shape)

  def statistics_layers(self, input_shape: layers.Shape) -> list[int]:
    """Which of the `num_weight_layers` each batch norm belongs to."""
    return self._layers_of('statistics_shapes', input_shape)

  def _layers_of(self, method: str, input_shape: layers.Shape) -> list[int]:
    found, number = [], -1
    for layer, shape in zip(self.layers, layers.shapes_along(
        self.layers, input_shape)):
      number += layer.has_options
      # A norm before all others goes with the first layer.
      found += [max(number, 0)] * len(getattr(layer, method)(shape))
    return found

  def check(self, input_shape: layers.Shape, num_outputs: int) -> None:
    """Raises ValueError unless the body takes such inputs to such outputs."""
    try:
      found = self.output_shape(input_shape)
    except ValueError as error:
      raise ValueError(f'body {self.name!r} does not fit inputs of shape '
                       f'{tuple(input_shape)}: {error}') from error
    if found != (num_outputs,):
      raise ValueError(f'body {self.name!r} has outputs of shape {found}, the '
                       f'problem needs {num_outputs}.')

  @property
  def differs_in_training(self) -> bool:
    """Whether training forwards otherwise: batch norms, or dropout's rates."""
    return self.has_batch_norm or layers.has_dropout(self.layers)

  @property
  def has_batch_norm(self) -> bool:
    """Whether there are running statistics."""
    return without_statistics(self) != self

  def check_no_batch_norm(self, method: str) -> None:
    """Raises ValueError if there is a batch norm, for a method without."""
    if self.has_batch_norm:
      raise ValueError(f"{method} cannot serve body {self.name!r} with norm "
                       "'batch', whose statistics belong to one network: use "
                       "norm 'group' or 'none'.")


def make_mlp(hidden_sizes: Sequence[int], num_outputs: int,
             first_bias_std: float = 0., dropout_rate: float = 0.) -> Body:
  """An MLP of ReLU layers; images are flattened.

  Args:
    hidden_sizes: units of each hidden layer.
    num_outputs: units of the linear output layer.
    first_bias_std: std of the first layer's initial bias; others start at 0.
    dropout_rate: of the hidden layers' dropout places, see `layers.Dropout`.
  """
  found: list[layers.Layer] = [images.Flatten(), layers.Dropout(of_input=True)]
  stds = [first_bias_std] + [0.] * len(hidden_sizes)
  for size, std in zip(hidden_sizes, stds):
    found += [layers.Dense(size, bias_std=std),
              layers.Dropout(rate=dropout_rate)]
  found.append(layers.Dense(num_outputs, 'none', stds[-1]))
  return Body('mlp', tuple(found))


def make_mlp_dropout(hidden_sizes: Sequence[int], num_outputs: int,
                     first_bias_std: float = 0.) -> Body:
  """The MLP with dropout as in Zamyatin et al. 2026 (arXiv 2601.16936)."""
  return make_mlp(hidden_sizes, num_outputs, first_bias_std, dropout_rate=0.05)


def make_small_cnn(num_outputs: int) -> Body:
  """Three convolutions of 16, 32 and 32 channels and two dense layers."""
  found: list[layers.Layer] = [layers.Dropout(of_input=True)]
  for channels in (16, 32, 32):
    found += [images.Conv2D(channels), images.MaxPool(), layers.Dropout()]
  return Body('small_cnn', (*found, *_dense_head(num_outputs)))


def make_medium_cnn(num_outputs: int) -> Body:
  """Four convolutions of 32, 64, 128, 128 channels and two dense layers."""
  return Body('medium_cnn', (
      layers.Dropout(of_input=True),
      images.Conv2D(32), images.MaxPool(), layers.Dropout(),
      images.Conv2D(64, padding='VALID'), images.MaxPool(), layers.Dropout(),
      images.Conv2D(128), layers.Dropout(),
      images.Conv2D(128), layers.Dropout(),
      *_dense_head(num_outputs)))


def _dense_head(num_outputs: int) -> tuple[layers.Layer, ...]:
  return (images.GlobalAveragePool(), layers.Dense(32), layers.Dropout(),
          layers.Dense(num_outputs, 'none'))


def make_resnet(num_blocks: Sequence[int], channels: Sequence[int],
                num_outputs: int, norm: str = 'batch',
                name: str = 'resnet') -> Body:
  """A residual network of basic blocks for small images.

  Args:
    num_blocks: residual blocks of each stage.
    channels: of each stage; a stage but the first halves height and width.
    num_outputs: units of the linear output layer.
    norm: a name in `norms.NORMS`; convolutions have biases with 'none' only.
    name: of the body.
  """
  def convolution(size: int, window: int, stride: int,
                  activation: str) -> tuple[layers.Layer, ...]:
    return (images.Conv2D(size, window, stride, activation='none',
                          with_bias=norm == 'none'),
            norms.Norm(norm, activation))

  found = [layers.Dropout(of_input=True), *convolution(channels[0], 3, 1,
                                                       'relu')]
  inputs = channels[0]
  for stage, (blocks, size) in enumerate(zip(num_blocks, channels,
                                             strict=True)):
    for block in range(blocks):
      stride = 2 if stage > 0 and block == 0 else 1
      found.append(layers.Residual(
          layers=(*convolution(size, 3, stride, 'relu'), layers.Dropout(),
                  *convolution(size, 3, 1, 'none')),
          shortcut=(() if stride == 1 and inputs == size else
                    convolution(size, 1, stride, 'none'))))
      inputs = size
  found += [images.GlobalAveragePool(), layers.Dropout(),
            layers.Dense(num_outputs, 'none')]
  return Body(name, tuple(found))


def make_resnet20(num_outputs: int, norm: str = 'batch') -> Body:
  """ResNet-20 for CIFAR."""
  return make_resnet((3, 3, 3), (16, 32, 64), num_outputs, norm, 'resnet20')


def make_resnet18(num_outputs: int, norm: str = 'batch') -> Body:
  """ResNet-18 with a stem for CIFAR."""
  return make_resnet((2, 2, 2, 2), (64, 128, 256, 512), num_outputs, norm,
                     'resnet18')


# Name -> (factory, the settings that it takes besides num_outputs).
BODIES = {
    'mlp': (make_mlp, ('hidden_sizes', 'first_bias_std')),
    'mlp_dropout': (make_mlp_dropout, ('hidden_sizes', 'first_bias_std')),
    'small_cnn': (make_small_cnn, ()),
    'medium_cnn': (make_medium_cnn, ()),
    'resnet20': (make_resnet20, ('norm',)),
    'resnet18': (make_resnet18, ('norm',)),
}


def make_body(name: str, input_shape: layers.Shape, num_outputs: int,
              **settings) -> Body:
  """A body by its name.

  Args:
    name: a key of `BODIES`.
    input_shape: shape of one example, (features,) or (height, width, channels).
    num_outputs: units of the last layer.
    **settings: of the body: hidden_sizes and first_bias_std of the MLPs, norm
      of the residual networks.

  Raises:
    ValueError: there is no such body, it has no such setting, or it does not
      fit the inputs.
  """
  checks.check_choice('body', name, BODIES)
  checks.check_count('num_outputs', num_outputs)
  factory, allowed = BODIES[name]
  for setting in settings:
    if setting not in allowed:
      raise ValueError(f'body {name!r} has no setting {setting!r}; allowed are '
                       f'{", ".join(allowed) or "none"}.')
  body = factory(num_outputs=num_outputs, **settings)
  body.check(input_shape, num_outputs)
  return body


def check_body(config: Any, bias_rules: Sequence[str] = ()) -> None:
  """Checks the fields of an agent's config that say what its network is.

  Args:
    config: see `choose_body`.
    bias_rules: names that its first_bias_std may be instead of a number.
  """
  if not isinstance(config.body, Body):
    checks.check_choice('body', config.body, BODIES)
  checks.check_choice('norm', config.norm, norms.NORMS)
  checks.check_sizes('hidden_sizes', config.hidden_sizes)
  first_bias_std = getattr(config, 'first_bias_std', 0.)
  if first_bias_std not in bias_rules:
    checks.check_scale('first_bias_std', first_bias_std)


def choose_body(config: Any, input_shape: layers.Shape | None = None,
                num_outputs: int = 1) -> Body:
  """The body that an agent's config asks for.

  Args:
    config: has the fields `body`, a key of `BODIES` or a `Body`, and the
      settings of bodies, of which each body takes those that it has.
    input_shape: shape of one example; None leaves unchecked that the body takes
      it.
    num_outputs: units of the last layer.

  Raises:
    ValueError: the body does not fit the inputs, or has other outputs.
  """
  body = config.body
  if isinstance(body, str):
    factory, allowed = BODIES[body]
    body = factory(num_outputs=num_outputs, **{
        name: getattr(config, name) for name in allowed
        if hasattr(config, name)})
  if input_shape is not None:
    body.check(input_shape, num_outputs)
  return body


def body_shapes(config: Any,
                prior: base.PriorKnowledge) -> list[parameters.LayerShape]:
  """The weight arrays of an agent's body for a problem, from the input on.

  Args:
    config: see `choose_body`.
    prior: says what inputs and outputs are.

  Raises:
    ValueError: the body does not fit the problem.
  """
  return choose_body(config, prior.input_shape, prior.num_outputs
                     ).weight_shapes(prior.input_shape)


def _change_norms(body: Body, kinds: Sequence[str], kind: str) -> Body:
  """The body with norms of one kind for norms of others."""
  def change(layer: layers.Layer) -> layers.Layer:
    if isinstance(layer, norms.Norm) and layer.kind in kinds:
      return dataclasses.replace(layer, kind=kind)
    if isinstance(layer, layers.Residual):
      return dataclasses.replace(
          layer, layers=tuple(map(change, layer.layers)),
          shortcut=tuple(map(change, layer.shortcut)))
    return layer

  return dataclasses.replace(body, layers=tuple(map(change, body.layers)))


def without_statistics(body: Body) -> Body:
  """The body with group norms for batch norms: for prior functions.

  A prior function is never trained, so that nothing would ever measure the
  statistics of its batch norms.
  """
  return _change_norms(body, ('batch',), 'group')


def without_input_dropout(body: Body) -> Body:
  """The same body without dropout places of its input, whatever their rate."""
  return dataclasses.replace(body, layers=tuple(
      layer for layer in body.layers
      if not (isinstance(layer, layers.Dropout) and layer.of_input)))


def without_norms(body: Body) -> Body:
  """The body without its norms; their activations stay."""
  return _change_norms(body, ('batch', 'group'), 'none')


def forward(body: Body, weights: layers.Weights, x: base.Array,
            run: layers.ForwardPass = layers.INFERENCE) -> base.Array:
  """A body's outputs for members side by side.

  Args:
    body: the network.
    weights: the arrays of `Body.weight_shapes`, [J, out, columns] each, or
      [1, out, columns] where members share them.
    x: [B, ...].
    run: statistics and dropout of this pass.

  Returns:
    [J, B, out], J of the last layer.
  """
  weights = [w[0] if w.ndim == 3 and len(w) == 1 else w for w in weights]
  h = layers.apply_layers(body.layers, weights, layers.first_layout(x),
                          x.shape[1:], run)
  h = h if h.ndim == 3 else h[None]
  return h.swapaxes(1, 2)
