"""Settings of the study, besides those of training."""

import dataclasses

from enn_ensembles import checks
from enn_ensembles.studies.loss_landscape import samplers
from enn_ensembles.studies.loss_landscape import trajectories


@dataclasses.dataclass(frozen=True)
class LandscapeSettings:
  """What the study does with its runs.

  The scales of the samplers are those of the authors' public notebook.

  Attributes:
    training: of every run.
    num_inits: runs, each from initial weights of its own.
    num_trajectories: so many of them keep all snapshots; three at least, which
      span the plane.
    num_last: last snapshots of a run that samplers and snapshot ensembles use.
    num_subsets: ensembles of one size are averaged over so many subsets at
      most.
    num_samples: networks that a subspace sampler draws for an ensemble.
    num_plane_samples: networks that it draws for the plane of diversity and
      accuracy.
    random_scale: s of random directions in ensembles.
    accuracy_margin: a random direction is kept if its validation accuracy is at
      least the solution's less this margin.
    max_tries: of each random direction.
    dropout_scale: p = this times U.
    diagonal_scale: of the diagonal Gaussian's std in ensembles.
    low_rank_components: principal components.
    low_rank_scale: of the coordinates in ensembles.
    pca_scale: 'covariance' or 'published', see `samplers.draw_low_rank`.
    plane_random_scale: s of random directions in the plane.
    plane_diagonal_scale: times U in the plane.
    plane_low_rank_scale: in the plane.
    plane_margin: samples of the plane count for the verdict if their accuracy
      is at least the solution's less this margin. Both limits meet where the
      accuracy is low.
    num_embedded: test images whose probabilities are embedded by t-SNE.
    num_surface_images: images of each set that lines and planes are made on.
    num_line_points: points of a line.
    num_grid_points: points of each side of the plane.
    num_hard: images of the highest loss that are shown.
  """
  training: trajectories.TrainingSettings = trajectories.TrainingSettings()
  num_inits: int = 10
  num_trajectories: int = 3
  num_last: int = 10
  num_subsets: int = 200
  num_samples: int = 30
  num_plane_samples: int = 50
  random_scale: float = 10.
  accuracy_margin: float = 0.02
  max_tries: int = 5
  dropout_scale: float = 0.1
  diagonal_scale: float = 1.
  low_rank_components: int = 5
  low_rank_scale: float = 1.
  pca_scale: str = 'covariance'
  plane_random_scale: float = 70.
  plane_diagonal_scale: float = 10.
  plane_low_rank_scale: float = 6.
  plane_margin: float = 0.05
  num_embedded: int = 1024
  num_surface_images: int = 2000
  num_line_points: int = 41
  num_grid_points: int = 31
  num_hard: int = 24

  def __post_init__(self):
    for name in ('num_subsets', 'num_samples', 'num_plane_samples', 'max_tries',
                 'low_rank_components', 'num_embedded', 'num_surface_images',
                 'num_hard'):
      checks.check_count(name, getattr(self, name))
    for name in ('num_line_points', 'num_grid_points', 'num_trajectories'):
      checks.check_count(name, getattr(self, name), minimum=3)
    for name in ('random_scale', 'accuracy_margin', 'diagonal_scale',
                 'low_rank_scale', 'plane_random_scale', 'plane_diagonal_scale',
                 'plane_low_rank_scale', 'plane_margin'):
      checks.check_scale(name, getattr(self, name))
    checks.check_rate('dropout_scale', self.dropout_scale)
    checks.check_choice('pca_scale', self.pca_scale, samplers.PCA_SCALES)
    checks.check_count('num_inits', self.num_inits,
                       minimum=self.num_trajectories)
    checks.check_count('num_last', self.num_last,
                       minimum=self.low_rank_components + 1)
    if self.num_last > self.training.num_epochs:
      raise ValueError(f'num_last must be at most num_epochs '
                       f'{self.training.num_epochs}, got {self.num_last}.')
