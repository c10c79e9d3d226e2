"""The page of hard examples: a slider over epochs, one file by itself."""

import base64
from collections.abc import Sequence
import importlib.resources
import io

import jinja2
import numpy as np
from PIL import Image

from enn_ensembles.problems import image_data
from enn_ensembles.studies.loss_landscape import hard_examples
from enn_ensembles.studies.loss_landscape import pictures
from enn_ensembles.studies.loss_landscape import trajectories


def _png(image: np.ndarray) -> str:
  """An image [H, W, C] as PNG in base64."""
  if image.dtype != np.uint8:
    image = np.round(255. * image).astype(np.uint8)
  stream = io.BytesIO()
  Image.fromarray(image if image.shape[-1] == 3 else image[..., 0]).save(
      stream, format='png')
  return base64.b64encode(stream.getvalue()).decode()


def make_page(images: image_data.ImageData,
              runs: Sequence[trajectories.Run],
              found: hard_examples.HardExamples, num: int) -> str:
  """The images of the highest loss after each epoch, and the confusions.

  Args:
    images: of the test set.
    runs: the whole ones.
    found: their hard examples.
    num: images of each epoch.
  """
  epochs, shown = [], {}
  for s, epoch in enumerate(runs[0].epochs.tolist()):
    predicted = np.stack([run.logits[s].argmax(axis=-1) for run in runs])
    wrong = np.mean(predicted != images.labels, axis=1)
    hardest = []
    for row in np.argsort(-found.losses[s], kind='stable')[:num].tolist():
      shown[row] = shown.get(row) or _png(images.images[row])
      label = int(images.labels[row])
      hardest.append({
          'image': row, 'right': bool(np.all(predicted[:, row] == label)),
          'text': f'{label}: {pictures.votes(predicted[:, row])}, '
                  f'{found.losses[s, row]:.2f}'})
    epochs.append({
        'epoch': epoch, 'hardest': hardest,
        'summary': 'errors of the runs: ' + ', '.join(
            f'{share:.1%}' for share in wrong),
        'confusion': found.confusions[s].tolist()})
  source = (importlib.resources.files('enn_ensembles.studies.loss_landscape')
            / 'page.html.jinja').read_text(encoding='utf-8')
  environment = jinja2.Environment(autoescape=True,
                                   undefined=jinja2.StrictUndefined)
  return environment.from_string(source).render(
      title=f'Hard examples of {images.name}, epoch by epoch',
      introduction=f'{len(runs)} runs from different initial weights on the '
                   f'same training images; {len(images)} test images.',
      epochs=epochs, images=shown) + '\n'
