"""Trains the cases of `enn_ensembles.studies.speed.rivals` in PyTorch.

Run by scripts/pytorch_speed.sh, in an environment that has torch; with
torch-uncertainty also the cases whose names begin with 'routine_'. Reads lines
of JSON {"case", "num_steps", "num_threads"} and answers each with a line
{"seconds", "version"}, or {"error"}. Seconds are those of the steps; making the
networks and a few steps to warm up are not among them.
"""

from collections.abc import Callable
import importlib.util
import json
import logging
import pathlib
import struct
import sys
import tempfile
import time
import warnings

import torch
from torch import nn
from torch.nn import functional

BATCH = 128
NUM_WARM = 5
MEMBERS = 4


class BatchLinear(nn.Module):
  """A dense layer of BatchEnsemble: r o (W (s o x)) + b, x [K, B, in]."""

  def __init__(self, num_in: int, num_out: int):
    super().__init__()
    self.weight = nn.Parameter(torch.randn(num_out, num_in) * num_in**-0.5)
    self.bias = nn.Parameter(torch.zeros(MEMBERS, 1, num_out))
    self.r = nn.Parameter(torch.randn(MEMBERS, 1, num_out).sign())
    self.s = nn.Parameter(torch.randn(MEMBERS, 1, num_in).sign())

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x * self.s, self.weight) * self.r + self.bias


def make_mlp(linear: Callable[[int, int], nn.Module] = nn.Linear
             ) -> nn.Sequential:
  """784-64-32-16-10."""
  return nn.Sequential(linear(784, 64), nn.ReLU(), linear(64, 32), nn.ReLU(),
                       linear(32, 16), nn.ReLU(), linear(16, 10))


def make_small_cnn() -> nn.Sequential:
  """The package's small_cnn: 15,722 parameters."""
  layers: list[nn.Module] = []
  channels = 3
  for size in (16, 32, 32):
    layers += [nn.Conv2d(channels, size, 3, padding=1), nn.ReLU(),
               nn.MaxPool2d(2)]
    channels = size
  return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                       nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, num_steps: int,
          num_members: int = 1) -> float:
  """Seconds of so many steps of Adam; members see the same batches."""
  optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
  order = torch.randperm(len(x))

  def step(i: int) -> None:
    rows = order[(torch.arange(i * BATCH, (i + 1) * BATCH)) % len(x)]
    inputs, labels = x[rows], y[rows]
    if num_members > 1:
      inputs = inputs.expand(num_members, *inputs.shape)
      labels = labels.repeat(num_members)
    optimizer.zero_grad(set_to_none=True)
    loss = functional.cross_entropy(model(inputs).reshape(len(labels), -1),
                                    labels)
    loss.backward()
    optimizer.step()

  for i in range(NUM_WARM):
    step(i)
  start = time.perf_counter()
  for i in range(num_steps):
    step(i)
  return time.perf_counter() - start


def draw_data(case: str, num: int) -> tuple[torch.Tensor, torch.Tensor]:
  """Noise as images; what they show makes no difference to the time."""
  shape = (3, 32, 32) if 'cnn' in case else (784,)
  return torch.randn(num, *shape), torch.randint(0, 10, (num,))


def run_by_hand(case: str, num_steps: int) -> float:
  """A case as one writes it by hand."""
  x, y = draw_data(case, num_steps * BATCH)
  if case == 'mlp_batch_ensemble':
    return train(make_mlp(BatchLinear), x, y, num_steps, MEMBERS)
  make = make_small_cnn if 'cnn' in case else make_mlp
  # One network after the other.
  return sum(train(make(), x, y, num_steps)
             for _ in range(MEMBERS if case.endswith('ensemble') else 1))


def write_mnist(folder: pathlib.Path, num_train: int) -> None:
  """Noise in the format of MNIST, where torchvision looks for it."""
  raw = folder / 'MNIST' / 'raw'
  raw.mkdir(parents=True)
  for name, num in (('train', num_train), ('t10k', 1000)):
    images = torch.randint(0, 256, (num, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (num,), dtype=torch.uint8)
    for kind, array in (('images-idx3', images), ('labels-idx1', labels)):
      header = struct.pack('>HBB', 0, 8, array.ndim) + struct.pack(
          f'>{array.ndim}I', *array.shape)
      (raw / f'{name}-{kind}-ubyte').write_bytes(
          header + array.numpy().tobytes())


def run_routine(case: str, num_steps: int) -> float:
  """A case by torch-uncertainty's routine and data module."""
  from torch_uncertainty import methods
  from torch_uncertainty import TUTrainer
  from torch_uncertainty.datamodules import MNISTDataModule
  from torch_uncertainty.layers import BatchLinear as TheirBatchLinear
  from torch_uncertainty.routines import ClassificationRoutine
  from torch_uncertainty.transforms import RepeatTarget

  def linear(num_in: int, num_out: int) -> nn.Module:
    return TheirBatchLinear(num_in, num_out, num_estimators=MEMBERS)

  if case == 'routine_mlp_ensemble':
    model = methods.deep_ensembles(
        nn.Sequential(nn.Flatten(), make_mlp()), num_estimators=MEMBERS,
        reset_model_parameters=True)
  else:
    model = methods.batch_ensemble(
        nn.Sequential(nn.Flatten(), make_mlp(linear)), num_estimators=MEMBERS,
        repeat_training_inputs=True)
  with tempfile.TemporaryDirectory() as folder:
    write_mnist(pathlib.Path(folder), num_steps * BATCH)
    data = MNISTDataModule(root=folder, batch_size=BATCH, eval_ood=False)
    routine = ClassificationRoutine(
        model=model, num_classes=10, loss=nn.CrossEntropyLoss(),
        is_ensemble=True, format_batch_fn=RepeatTarget(MEMBERS),
        optim_recipe=torch.optim.Adam(model.parameters(), lr=1e-3,
                                      weight_decay=1e-4))
    trainer = TUTrainer(
        accelerator='cpu', max_epochs=1, limit_val_batches=0, logger=False,
        enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False)
    start = time.perf_counter()
    trainer.fit(routine, data)
    return time.perf_counter() - start


def main() -> None:
  warnings.filterwarnings('ignore')
  for name in ('lightning', 'lightning.pytorch', 'pytorch_lightning'):
    logging.getLogger(name).setLevel(logging.ERROR)
  answers = sys.stdout
  sys.stdout = sys.stderr  # Libraries may print.
  for line in sys.stdin:
    asked = json.loads(line)
    case, num_steps = asked['case'], asked['num_steps']
    torch.set_num_threads(asked['num_threads'])
    version = f'torch {torch.__version__}'
    if not case.startswith('routine_'):
      found = {'seconds': run_by_hand(case, num_steps), 'version': version}
    elif importlib.util.find_spec('torch_uncertainty') is None:
      found = {'error': 'torch-uncertainty is not installed'}
    else:
      found = {'seconds': run_routine(case, num_steps), 'version': version}
    print(json.dumps(found), file=answers, flush=True)


if __name__ == '__main__':
  main()
