"""minimal.py is `train` in Setting 1, and C1's first look."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import minimal
import training
from data import SETTING_1

SOURCE = Path(minimal.__file__).read_text(encoding="utf-8")


def test_the_same_as_train():
    """Twenty steps of both optimizers: weights, batches, gradient, clipping and updates."""
    train = training.train.__wrapped__  # computed at every call
    loss = train(SETTING_1, training.contestants(SETTING_1), seed=0, steps=20)["loss"]
    np.testing.assert_allclose(minimal.train(seed=0, steps=20), loss, rtol=1e-12)


def test_numpy_alone():
    imports = [line for line in SOURCE.splitlines() if line.startswith(("import ", "from "))]
    assert imports == ["import numpy as np"]


def test_six_seeds_and_a_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    exec(SOURCE.replace("667", "10"), {"__name__": "__main__"})
    plt.close("all")
    *seeds, median, plot = capsys.readouterr().out.splitlines()
    ratios = [float(line.split()[-1]) for line in seeds]
    assert len(ratios) == 6
    assert float(median.split()[-1]) == pytest.approx(np.median(ratios), rel=0.01)
    assert (tmp_path / plot).exists()
