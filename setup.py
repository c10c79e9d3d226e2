"""Package metadata. CONTRIBUTING.md says which versions were run.

In a clone the commands (experiments) and configs (testbed_configs) stand beside
the package; installed, they stand inside it, and nothing else does at the top
of site-packages.
"""

import pathlib
import re

import setuptools

_INIT = pathlib.Path(__file__).with_name('enn_ensembles') / '__init__.py'
VERSION = re.search(r"^__version__ = '(.*)'$", _INIT.read_text(), re.M)[1]

setuptools.setup(
    name='enn_ensembles',
    version=VERSION,
    description='Ensembles as epistemic neural networks, scored against exact '
                'posteriors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    packages=[
        *setuptools.find_namespace_packages(include=['enn_ensembles*'],
                                            exclude=['*__pycache__*']),
        'enn_ensembles.experiments',
        'enn_ensembles.testbed_configs',
    ],
    package_dir={
        'enn_ensembles.experiments': 'experiments',
        'enn_ensembles.testbed_configs': 'testbed_configs',
    },
    package_data={'': ['py.typed', '*.html', '*.css', '*.js', '*.jinja',
                       '*.json', '*.csv']},
    entry_points={
        'console_scripts': ['enn-ensembles = enn_ensembles.commands:main']},
    python_requires='>=3.11',
    # The oldest versions that tests were run with (scripts/test_versions.sh);
    # of the oldest ones there are no wheels for Python 3.13.
    install_requires=[
        'absl-py>=2.1',
        'chex>=0.1.89',
        'dm-haiku>=0.0.14; python_version < "3.13"',
        'dm-haiku>=0.0.15; python_version >= "3.13"',
        'jax>=0.6',
        'jaxlib>=0.6',
        'jinja2>=3.1',
        'matplotlib>=3.8; python_version < "3.13"',
        'matplotlib>=3.9.2; python_version >= "3.13"',
        # Importing 0.7.0 takes 1.3 s of CPU, 0.6.0 0.2 s, and importing jax
        # 2.1 and 1.1 s: every process of a sweep pays that.
        'ml-dtypes!=0.7.0',
        'numpy>=1.26; python_version < "3.13"',
        'numpy>=2.1; python_version >= "3.13"',
        'optax>=0.2.4',
        'pandas>=2.2; python_version < "3.13"',
        'pandas>=2.2.3; python_version >= "3.13"',
        'pillow>=10.3; python_version < "3.13"',
        'pillow>=11; python_version >= "3.13"',
        'scikit-learn>=1.4; python_version < "3.13"',
        'scikit-learn>=1.5.2; python_version >= "3.13"',
        'scipy>=1.13; python_version < "3.13"',
        'scipy>=1.14.1; python_version >= "3.13"',
        'tqdm>=4.66',
    ],
    extras_require={
        # Names have dashes: pip 23 takes no others.
        # Ranges: a new ruff or pyright finds what nobody has looked at. The
        # extra nodejs is the program that pyright runs on.
        'dev': ['ruff>=0.14,<0.18', 'pyright[nodejs]>=1.1.414,<1.2'],
        'test': ['pytest>=8', 'pytest-xdist>=3.7', 'nbclient>=0.10',
                 'nbformat>=5.10', 'ipykernel>=6.29'],
    },
)
