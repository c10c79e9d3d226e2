"""Package metadata. WORKSPACE.md says which versions were run."""

import setuptools

setuptools.setup(
    name='enn_ensembles',
    version='0.1.0',
    description='Ensembles as epistemic neural networks, scored against exact '
                'posteriors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    packages=setuptools.find_namespace_packages(
        include=['enn_ensembles*', 'experiments', 'testbed_configs']),
    package_data={'enn_ensembles.report': ['*.jinja']},
    python_requires='>=3.11',
    install_requires=[
        'absl-py>=2.1',
        'chex>=0.1.89',
        'dm-haiku>=0.0.14',
        'jax>=0.6',
        'jaxlib>=0.6',
        'jinja2>=3.1',
        'matplotlib>=3.8',
        'numpy>=1.26',
        'optax>=0.2.4',
        'pandas>=2.2',
        'pillow>=10.3',
        'scikit-learn>=1.4',
        'scipy>=1.13',
        'tqdm>=4.66',
    ],
    extras_require={
        # Names have dashes: pip 23 takes no others.
        'test': ['pytest>=8', 'pytest-xdist>=3.6'],
    },
)
