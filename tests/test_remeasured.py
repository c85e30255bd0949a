"""Two findings measured again, each on a page of its own that knows nothing of training.py and
robust.py: its own loop, optimizer and random numbers; curvature by differences of gradients.

The seeds are others, so the numbers are not the same: they must lie where the seeds of the finding
lie, or not far outside.
"""

from pathlib import Path

import numpy as np
import pytest

import commands
import data
import linattn

FIGURES = Path(linattn.__file__).parent / "figures"


def prompts_of_setting_1(rng):
    return linattn.compress(data.sample_prompts(rng, 1000, n=20, d=5))


def clipped(grad):
    return grad / max(1, np.linalg.norm(grad))


def inside(value, found, margin):
    """Whether a number lies within the values of other seeds, or outside by a small factor."""
    return found.min() / margin < value < found.max() * margin


@pytest.mark.slow
def test_lead_in_setting_1():
    """Final losses of SGD and Adam after 1,000 steps at a constant rate, at the rates that the
    finding names: Adam is far below SGD."""
    parts = commands.load("lead", FIGURES)[1]["parts"]
    sgd_rate, adam_rate = (float(each.split()[1]) for each in parts[
        "Setting 1 constant 1000 rates"].values.split(", "))  # "SGD 0.1, Adam 0.02"
    rng, steps = np.random.default_rng(4), 1000
    theta = phi = 0.05 * rng.standard_normal((3, 2, 5, 5))
    velocity = mean = square = 0
    sgd_loss, adam_loss = [], []
    for t in range(1, steps + 1):
        prompts = prompts_of_setting_1(rng)
        loss, grad = linattn.loss_and_grad(theta, prompts)
        sgd_loss.append(loss)
        velocity = 0.9 * velocity + clipped(grad)
        theta = theta - sgd_rate * velocity
        loss, grad = linattn.loss_and_grad(phi, prompts)
        adam_loss.append(loss)
        grad = clipped(grad)
        mean, square = 0.9 * mean + 0.1 * grad, 0.9 * square + 0.1 * grad**2
        bias = 1 - 0.9**t
        phi = phi - adam_rate * (mean / bias) / (np.sqrt(square / bias) + 1e-8)
    sgd, adam = (np.median(loss[900:]) for loss in (sgd_loss, adam_loss))
    assert inside(sgd, parts["Setting 1 constant 1000 SGD"].values, 1.3)
    assert inside(adam, parts["Setting 1 constant 1000 Adam"].values, 1.3)
    assert inside(sgd / adam, parts["Setting 1 constant 1000"].values, 1.3)


def curvature(theta, v, prompts, h=1e-5):
    """v^T H v of a unit vector by a central difference of gradients."""
    v = v / np.linalg.norm(v)
    ahead, behind = (linattn.loss_and_grad(theta + side * h * v, prompts)[1] for side in (1, -1))
    return np.sum(v * (ahead - behind)) / (2 * h)


@pytest.mark.slow
def test_C11_along_the_path_of_sgd_in_setting_1():
    """v^T H v at iterations 250 and 500 for the gradient and for the momentum, as they are, clipped
    at two quantiles, and their signs."""
    kept = commands.load("clipping", FIGURES, "robust")[0]
    points = list(kept["point"])
    rng = np.random.default_rng(5)
    theta, velocity = 0.05 * rng.standard_normal((3, 2, 5, 5)), 0
    for t in range(501):
        grad = clipped(linattn.loss_and_grad(theta, prompts_of_setting_1(rng))[1])
        velocity = 0.9 * velocity + grad
        if t in (250, 500):
            found = {"gradient": [], "step": []}
            for _ in range(10):
                prompts = prompts_of_setting_1(rng)
                gradient = linattn.loss_and_grad(theta, prompts)[1]
                for name, v in (("gradient", gradient), ("step", -velocity)):
                    sizes = np.abs(v[v != 0])
                    kinds = [v, *(np.clip(v, -limit, limit) for limit in
                                  np.quantile(sizes, (0.9, 0.5))), np.sign(v)]
                    found[name].append([curvature(theta, kind, prompts) for kind in kinds])
            for name, values in found.items():
                typical = np.median(values, axis=0)  # (kinds,)
                others = kept[f"Setting 1, SGD's path, {name}"][:, :, points.index(t)]
                assert all(inside(value, seeds, 1.5) for value, seeds in zip(typical, others.T))
        theta = theta - 0.02 * velocity
