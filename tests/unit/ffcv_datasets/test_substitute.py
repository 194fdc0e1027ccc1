import numpy as np

from ffcv_datasets.crop import CentreView, TrainView
from ffcv_datasets.substitute import substitutes

SAMPLES = np.arange(20_000)


def test_a_substitute_depends_on_its_own_sample_alone() -> None:
    view = TrainView(seed=3, epoch=4, resolution=8)
    whole = substitutes(view, SAMPLES, 0, num_samples=50)
    assert (substitutes(view, SAMPLES[77:99], 0, num_samples=50) == whole[77:99]).all()
    assert (substitutes(TrainView(3, 4, 16), SAMPLES, 0, num_samples=50) == whole).all()


def test_substitutes_are_spread_evenly_over_the_file() -> None:
    found = substitutes(CentreView(8), SAMPLES, 0, num_samples=50)
    counts = np.bincount(found, minlength=50)
    assert len(counts) == 50
    assert (abs(counts - 400) < 6 * 20).all()  # six standard deviations


def test_seed_epoch_and_attempt_each_change_the_draw() -> None:
    draws = [
        substitutes(TrainView(seed, epoch, 8), SAMPLES, attempt, num_samples=1000)
        for seed, epoch, attempt in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    ]
    assert all((a != b).mean() > 0.99 for i, a in enumerate(draws) for b in draws[:i])
