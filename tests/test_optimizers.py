"""An optimizer is checked by its trajectory: ten steps against the same steps written as sums."""

import textwrap

import numpy as np
import pytest

import optimizers
from optimizers import (SGD, Adam, Muon, NormalizedSGD, SignDescent, clip_coordinates,
                        clip_global_norm)

GRADS = np.random.default_rng(0).standard_normal((10, 3))
START = np.array([1.0, -2.0, 0.5])


def trajectory(optimizer):
    params, path = START, []
    for grad in GRADS:
        params = optimizer.step(params, grad)
        path.append(params)
    return np.array(path)


def running(values, beta):
    """Sum over i <= t of beta^(t - i) values_i, for every t."""
    return np.array([sum(beta ** (t - i) * values[i] for i in range(t + 1))
                     for t in range(len(values))])


@pytest.mark.parametrize("momentum", (0.0, 0.5, 0.9))
def test_sgd(momentum):
    wanted = START - 0.1 * np.cumsum(running(GRADS, momentum), axis=0)
    np.testing.assert_allclose(trajectory(SGD(0.1, momentum)), wanted, rtol=1e-12)


def test_sgd_by_hand():
    """g = 1 for ever: v = 1, 1.9, 2.71, so theta = 0, -0.1, -0.29, -0.561."""
    sgd, theta = SGD(0.1), np.zeros(1)
    for wanted in (-0.1, -0.29, -0.561):
        theta = sgd.step(theta, np.ones(1))
        assert theta == pytest.approx(wanted, rel=1e-12)


def test_sign_descent():
    wanted = START - 0.1 * np.cumsum(np.sign(running(GRADS, 0.9)), axis=0)
    np.testing.assert_allclose(trajectory(SignDescent(0.1)), wanted, rtol=1e-12)


MATRICES = np.random.default_rng(1).standard_normal((4, 3, 2, 5, 5))  # steps of 3 layers
GROUPS = {  # how many entries have one scale, and where a group's entries are
    "all": (150, lambda l, which, i, j: 0), "layer": (50, lambda l, which, i, j: l),
    "block": (25, lambda l, which, i, j: (l, which)),
    "row": (5, lambda l, which, i, j: (l, which, i)),
    "coordinate": (1, lambda *index: index)}


@pytest.mark.parametrize("granularity", GROUPS)
@pytest.mark.parametrize("scale", (1e-200, 1, 1e200))
def test_normalized_sgd(granularity, scale):
    """Every group of entries moves by lr in root mean square, along its own momentum; the groups by
    a loop over all entries."""
    size, group_of = GROUPS[granularity]
    optimizer, params = NormalizedSGD(0.1, granularity=granularity), np.zeros((3, 2, 5, 5))
    for v, grad in zip(running(MATRICES, 0.9), MATRICES):
        groups = {}
        for index in np.ndindex(v.shape):
            groups.setdefault(group_of(*index), []).append(index)
        assert {len(entries) for entries in groups.values()} == {size}
        moved = optimizer.step(params, scale * grad) - params
        for entries in groups.values():
            of_group = np.array([v[index] for index in entries])
            wanted = -0.1 * of_group / np.sqrt(np.mean(of_group**2))
            np.testing.assert_allclose([moved[index] for index in entries], wanted, rtol=1e-9)


def test_normalized_sgd_by_coordinate_is_sign_descent():
    for grad in MATRICES:
        moves = [optimizer.step(0 * grad, grad) for optimizer in (
            NormalizedSGD(0.1, granularity="coordinate"), SignDescent(0.1))]
        np.testing.assert_allclose(*moves, rtol=1e-12)


def test_muon():
    """The polar factor: the momentum times (v^T v)^(-1/2), of spectral norm and, as a 5 x 5 matrix
    divided by sqrt(5), of root mean square 1."""
    muon, params = Muon(0.1), np.zeros((3, 2, 5, 5))
    for v, grad in zip(running(MATRICES, 0.9), MATRICES):
        moved = -(muon.step(params, grad) - params) / (0.1 * np.sqrt(5))
        for index in np.ndindex(3, 2):
            values, vectors = np.linalg.eigh(v[index].T @ v[index])
            polar = v[index] @ vectors @ np.diag(values**-0.5) @ vectors.T
            np.testing.assert_allclose(moved[index], polar, atol=1e-9)
    tall = Muon(1.0).step(np.zeros((4, 2)), MATRICES[0, 0, 0, :4, :2])  # -> [4, 2] of rms 1, too
    np.testing.assert_allclose(tall.T @ tall, 4 * np.eye(2), atol=1e-9)


@pytest.mark.parametrize("optimizer", (Muon(0.1), *(NormalizedSGD(0.1, granularity=each)
                                                    for each in GROUPS)))
def test_what_has_no_gradient_does_not_move(optimizer):
    """The last P block, and the directions of a matrix in which there is none."""
    grad = MATRICES[0].copy()
    grad[2, 0], grad[1, 1] = 0, np.outer(np.arange(5.0), np.ones(5))
    moved = optimizer.step(0 * grad, grad)
    assert not moved[2, 0].any() and moved[2, 1].all() and np.isfinite(moved).all()
    assert np.linalg.matrix_rank(moved[1, 1], tol=1e-9) == 1


@pytest.mark.parametrize("beta1, beta2, eps", (
    (0.9, 0.9, 1e-8), (0.9, 0.999, 1e-8), (0.0, 0.5, 0.1)))
def test_adam(beta1, beta2, eps):
    """The bias-corrected moments are weighted means: the weights' sum replaces 1 - beta^t."""
    ones = np.ones(10)
    mean = running(GRADS, beta1) / running(ones, beta1)[:, None]
    square = running(GRADS**2, beta2) / running(ones, beta2)[:, None]
    wanted = START - 0.01 * np.cumsum(mean / (np.sqrt(square) + eps), axis=0)
    np.testing.assert_allclose(trajectory(Adam(0.01, beta1, beta2, eps)), wanted, rtol=1e-12)


def test_adam_by_hand():
    """The first step is lr in every coordinate, however small the gradient; the second, with
    g = 1 then 3: m^ = (0.9 * 0.1 + 0.1 * 3) / 0.19, v^ = (0.09 + 0.9) / 0.19."""
    adam = Adam(0.5, eps=1e-12)
    theta = adam.step(np.zeros(2), np.array([1.0, -1e-5]))
    np.testing.assert_allclose(theta, [-0.5, 0.5], rtol=1e-6)
    theta = adam.step(theta, np.array([3.0, 0.0]))
    assert theta[0] == pytest.approx(-0.5 - 0.5 * (0.39 / 0.19) / np.sqrt(0.99 / 0.19), rel=1e-9)


def test_eps_of_adam():
    """Beside a gradient of its own size it halves the first step."""
    assert Adam(0.5).step(np.zeros(1), np.full(1, 1e-8)) == pytest.approx(-0.25)


@pytest.mark.parametrize("cls", (SGD, SignDescent, Adam))
def test_weight_decay_is_decoupled(cls):
    """It shrinks the parameters beside the step and leaves the step itself as it was."""
    plain, decayed = cls(0.1), cls(0.1, weight_decay=0.3)
    a = b = START
    for grad in GRADS:
        step = plain.step(a, grad) - a
        np.testing.assert_allclose(decayed.step(b, grad), b * (1 - 0.1 * 0.3) + step, rtol=1e-12)
        a, b = a + step, b * (1 - 0.1 * 0.3) + step


@pytest.mark.parametrize("cls", (SGD, SignDescent, Adam))
def test_arguments_are_not_altered(cls):
    optimizer, params, grad = cls(0.1), START.copy(), GRADS[0].copy()
    first = optimizer.step(params, grad)
    kept = first.copy()
    grad *= 100  # neither does the optimizer hold on to the array it was given
    second = optimizer.step(first, GRADS[1])
    assert np.array_equal(params, START) and np.array_equal(first, kept)
    np.testing.assert_array_equal(second, trajectory(cls(0.1))[1])


def test_clip_global_norm():
    grad = np.array([[3.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose(clip_global_norm(grad, 2.0), grad * 2 / 5)
    for limit in (5.0, 6.0):
        clipped = clip_global_norm(grad, limit)
        assert np.array_equal(clipped, grad) and not np.shares_memory(clipped, grad)
    assert np.array_equal(clip_global_norm(np.zeros(3), 1.0), np.zeros(3))


def test_clip_global_norm_needs_a_finite_norm():
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="^grad: got .*, wants"):
        clip_global_norm(np.full(3, 1e300), 1.0)


@pytest.mark.parametrize("norm", (1.0 + 1e-9, 1.2, 1.5, 100.0))
def test_clip_global_norm_acts_from_the_limit_on(norm):
    grad = norm * np.array([0.6, 0.8])
    np.testing.assert_allclose(clip_global_norm(grad, 1.0), [0.6, 0.8], rtol=1e-12)


def test_adam_refuses_a_square_that_overflows_and_goes_on():
    """Its running mean would be infinite for ever, and no step would move again."""
    adam = Adam(0.1)
    theta = adam.step(np.zeros(2), np.ones(2))
    with pytest.raises(ValueError, match="^grad: got one of infinite norm, wants"):
        adam.step(theta, np.array([1e200, 1.0]))
    np.testing.assert_allclose(adam.step(theta, np.ones(2)), [-0.2, -0.2], rtol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", (np.float32(0.5), np.float64(0.5), np.float16(0.5)))
def test_numbers_of_numpy(number):
    for cls in (SGD, Adam, Muon):
        cls(number, weight_decay=number)
    clip_global_norm(START, number)


def test_clip_coordinates():
    grad = np.array([-3.0, 0.2, 0.5, 7.0])
    assert np.array_equal(clip_coordinates(grad, 0.5), [-0.5, 0.2, 0.5, 0.5])
    assert np.array_equal(grad, [-3.0, 0.2, 0.5, 7.0])


@pytest.mark.parametrize("cls", (SGD, SignDescent, Adam))
@pytest.mark.parametrize("first, second", (((3, 2), (2,)), ((2,), (3, 2)), ((), (2,)), ((2,), ()),
                                           ((2,), (1,)), ((0,), (1,))))
def test_every_step_has_the_shape_of_the_first(cls, first, second):
    """The running means have that shape, and would be broadcast to or by another."""
    optimizer, plain = cls(0.1), cls(0.1)
    params = optimizer.step(np.ones(first), np.ones(first))
    assert np.shape(params) == first
    for wrong, name in ((np.ones(second), "params"), (np.ones(first), "grad")):
        with pytest.raises(ValueError, match=f"^{name}: got shape .*, wants") as error:
            optimizer.step(wrong, np.ones(second))
        assert str(first) in str(error.value) and str(second) in str(error.value)
    after = optimizer.step(params, np.ones(first))  # as if nothing had happened
    plain.step(np.ones(first), np.ones(first))
    assert np.array_equal(after, plain.step(params, np.ones(first)))


def test_the_example_of_the_docstring():
    """As it is pasted into a file. From m = 0 and g = 2, then -1: the signs of 0.2 and of
    0.9 * 0.02 - 0.1."""
    text = optimizers.__doc__
    text = text[text.index("    import numpy as np"):text.index("`python experiments.py")]
    names = {}
    exec(textwrap.dedent(text), names)
    lion = names["Lion"](lr=0.1)
    theta = lion.step(np.array([1.0]), np.array([2.0]))
    assert theta == pytest.approx(0.9)
    assert lion.step(theta, np.array([-1.0])) == pytest.approx(1.0)


@pytest.mark.parametrize("call, argument", [
    (lambda: SGD(0), "lr"),
    (lambda: SGD(-1.0), "lr"),
    (lambda: Adam(np.nan), "lr"),
    (lambda: Adam(np.inf), "lr"),
    (lambda: SGD("fast"), "lr"),
    (lambda: SGD(0.1, momentum=1.0), "momentum"),
    (lambda: SignDescent(0.1, momentum=-0.1), "momentum"),
    (lambda: Adam(0.1, beta1=1.0), "beta1"),
    (lambda: Adam(0.1, beta2=2), "beta2"),
    (lambda: Adam(0.1, eps=0), "eps"),
    (lambda: SGD(0.1, weight_decay=-1), "weight_decay"),
    (lambda: NormalizedSGD(0.1, granularity="column"), "granularity"),
    (lambda: NormalizedSGD(0.1, granularity=None), "granularity"),
    (lambda: NormalizedSGD(0.1).step(START, START), "params"),
    (lambda: Muon(0.1).step(START, START), "params"),
    (lambda: clip_global_norm(START, 0), "limit"),
    (lambda: clip_coordinates(START, -1), "limit"),
    (lambda: clip_coordinates([[1], [2, 3]], 1), "grad"),
    (lambda: SGD(0.1).step(START * np.nan, START), "params"),
    (lambda: Adam(0.1).step(START, START * np.nan), "grad"),
    (lambda: Adam(0.1).step(START, START * 1j), "grad"),
])
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: got .*, wants"):
        call()
