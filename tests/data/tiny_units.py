"""10,000 units of one small problem each: docs/thousand_nodes.md."""

INPUT_DIM = [2]
DATA_RATIO = [float(ratio) for ratio in range(1, 101)]
NOISE_STD = [0.1]
SEED = [0]
NUM_ENN_SAMPLES = 10
AGENTS = [{'agent': 'prior_only', 'replica': list(range(100))}]
