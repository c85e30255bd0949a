"""An optimizer is checked by its trajectory: ten steps against the same steps written as sums."""

import textwrap
from functools import partial

import numpy as np
import pytest

import mlp
import optimizers
from optimizers import SGD, Adam, Muon, NormalizedSGD, SignDescent, clip_global_norm

GRADS = np.random.default_rng(0).standard_normal((10, 3))
START = np.array([1.0, -2.0, 0.5])
MATRICES = np.random.default_rng(1).standard_normal((10, 3, 2, 5, 5))  # ten steps of 3 layers


def trajectory(optimizer, params=START, grads=GRADS):
    path = []
    for grad in grads:
        params = optimizer.step(params, grad)
        path.append(params)
    return np.array(path)


def running(values, beta):
    """Sum over i <= t of beta^(t - i) values_i, for every t."""
    return np.array([sum(beta ** (t - i) * values[i] for i in range(t + 1))
                     for t in range(len(values))])


# ---- Trajectories --------------------------------------------------------------------------------

def test_sgd_by_hand():
    """g = 1 for ever: v = 1, 1.9, 2.71, so theta = 0, -0.1, -0.29, -0.561."""
    path = trajectory(SGD(0.1), np.zeros(1), np.ones((3, 1)))
    np.testing.assert_allclose(path[:, 0], [-0.1, -0.29, -0.561], rtol=1e-12)


def test_sign_descent_by_hand():
    """Every coordinate moves by lr, however small its gradient, but for one of 0."""
    theta = SignDescent(0.1).step(np.zeros(4), np.array([1e-300, 0.0, -1e300, 2.0]))
    assert np.array_equal(theta, [-0.1, 0.0, 0.1, -0.1])


def test_adam_by_hand():
    """The first step is lr in every coordinate, however small the gradient; the second, with
    g = 1 then 3: m^ = (0.9 * 0.1 + 0.1 * 3) / 0.19, v^ = (0.09 + 0.9) / 0.19. Beside a gradient of
    its own size, eps halves the first step."""
    first, second = trajectory(Adam(0.5, eps=1e-12), np.zeros(2), [[1.0, -1e-5], [3.0, 0.0]])
    np.testing.assert_allclose(first, [-0.5, 0.5], rtol=1e-6)
    assert second[0] == pytest.approx(-0.5 - 0.5 * (0.39 / 0.19) / np.sqrt(0.99 / 0.19), rel=1e-9)
    assert Adam(0.5).step(np.zeros(1), np.full(1, 1e-8)) == pytest.approx(-0.25)


@pytest.mark.parametrize("momentum", (0.0, 0.5, 0.9))
@pytest.mark.parametrize("cls, direction", ((SGD, np.positive), (SignDescent, np.sign)))
def test_sgd_and_sign_descent(cls, direction, momentum):
    wanted = START - 0.1 * np.cumsum(direction(running(GRADS, momentum)), axis=0)
    np.testing.assert_allclose(trajectory(cls(0.1, momentum)), wanted, rtol=1e-12)


@pytest.mark.parametrize("beta1, beta2, eps", (
    (0.9, 0.9, 1e-8), (0.9, 0.999, 1e-8), (0.0, 0.5, 0.1)))
def test_adam(beta1, beta2, eps):
    """The bias-corrected moments are weighted means: the weights' sum replaces 1 - beta^t."""
    ones = np.ones(10)
    mean = running(GRADS, beta1) / running(ones, beta1)[:, None]
    square = running(GRADS**2, beta2) / running(ones, beta2)[:, None]
    wanted = START - 0.01 * np.cumsum(mean / (np.sqrt(square) + eps), axis=0)
    np.testing.assert_allclose(trajectory(Adam(0.01, beta1, beta2, eps)), wanted, rtol=1e-12)


GROUPS = dict(all=150, layer=50, block=25, row=5, coordinate=1)  # neighbours that share a scale


@pytest.mark.parametrize("granularity", GROUPS)
@pytest.mark.parametrize("scale", (1e-200, 1, 1e200))
def test_normalized_sgd(granularity, scale):
    """Every group of entries moves by lr in root mean square, along its own momentum."""
    grads = MATRICES * scale
    groups = running(MATRICES, 0.9).reshape(10, -1, GROUPS[granularity])
    wanted = -0.1 * np.cumsum(groups / np.sqrt((groups**2).mean(axis=2, keepdims=True)), axis=0)
    path = trajectory(NormalizedSGD(0.1, granularity=granularity), 0 * grads[0], grads)
    np.testing.assert_allclose(path.reshape(wanted.shape), wanted, atol=1e-12)


def test_muon():
    """The polar factor: the momentum times (v^T v)^(-1/2), of spectral norm and, as a 5 x 5 matrix
    divided by sqrt(5), of root mean square 1."""
    v = running(MATRICES, 0.9)
    values, vectors = np.linalg.eigh(v.mT @ v)
    polar = v @ (vectors * values[..., None, :] ** -0.5) @ vectors.mT
    path = trajectory(Muon(0.1), 0 * v[0], MATRICES)
    np.testing.assert_allclose(path, -0.1 * np.sqrt(5) * np.cumsum(polar, axis=0), atol=1e-9)
    tall = Muon(1.0).step(np.zeros((4, 2)), MATRICES[0, 0, 0, :4, :2])  # -> [4, 2] of rms 1, too
    np.testing.assert_allclose(tall.T @ tall, 4 * np.eye(2), atol=1e-9)


@pytest.mark.parametrize("optimizer", (
    Muon(0.1), *(NormalizedSGD(0.1, granularity=groups) for groups in GROUPS)))
def test_what_has_no_gradient_does_not_move(optimizer):
    """The last P block, and the directions of a matrix in which there is none."""
    grad = MATRICES[0].copy()
    grad[2, 0], grad[1, 1] = 0, np.outer(np.arange(5.0), np.ones(5))
    moved = optimizer.step(0 * grad, grad)
    assert not moved[2, 0].any() and moved[2, 1].all() and np.isfinite(moved).all()
    assert np.linalg.matrix_rank(moved[1, 1], tol=1e-9) == 1


@pytest.mark.parametrize("cls", (SGD, SignDescent, Adam))
def test_weight_decay_is_decoupled(cls):
    """It shrinks the parameters beside the step and leaves the step itself as it was."""
    steps, before = np.diff(trajectory(cls(0.1)), axis=0, prepend=[START]), START
    for step, after in zip(steps, trajectory(cls(0.1, weight_decay=0.3))):
        np.testing.assert_allclose(after, before * (1 - 0.1 * 0.3) + step, rtol=1e-12)
        before = after


# ---- Clipping ------------------------------------------------------------------------------------

@pytest.mark.parametrize("norm", (0, 0.5, 1 - 1e-9, 1, 1 + 1e-9, 1.2, 1.5, 100, 1e150))
def test_clip_global_norm_acts_from_the_limit_on(norm):
    grad = norm * np.array([[0.6, 0.0], [0.0, 0.8]])
    clipped = clip_global_norm(2 * grad, 2.0)
    np.testing.assert_allclose(clipped, 2 * grad / max(1, norm), rtol=1e-12)
    assert not np.shares_memory(clip_global_norm(grad, 2.0), grad)


# ---- What goes in and comes out ------------------------------------------------------------------

@pytest.mark.parametrize("cls", (SGD, SignDescent, Adam))
def test_arguments_are_not_altered(cls):
    optimizer, params, grad = cls(0.1), START.copy(), GRADS[0].copy()
    first = optimizer.step(params, grad)
    kept = first.copy()
    grad *= 100  # neither does the optimizer hold on to the array it was given
    second = optimizer.step(first, GRADS[1])
    assert np.array_equal(params, START) and np.array_equal(first, kept)
    np.testing.assert_array_equal(second, trajectory(cls(0.1))[1])


@pytest.mark.parametrize("cls", (SGD, Adam))
@pytest.mark.parametrize("first, second", (
    ((3, 2), (2,)), ((2,), (3, 2)), ((), (2,)), ((2,), (1,))))
def test_every_step_has_the_shape_of_the_first(cls, first, second):
    """The running means have that shape, and would be broadcast to or by another. A step that is
    refused leaves no trace."""
    optimizer, params = cls(0.1), np.ones((2, *first))
    path = [optimizer.step(params[0], params[0])]
    for wrong, name in ((second, "params"), (first, "grad")):
        with pytest.raises(ValueError, match=f"^{name}: got shape .*, wants") as error:
            optimizer.step(np.ones(wrong), np.ones(second))
        assert str(first) in str(error.value) and str(second) in str(error.value)
    path.append(optimizer.step(path[0], params[1]))
    assert np.array_equal(path, trajectory(cls(0.1), params[0], params))


def test_adam_refuses_a_square_that_overflows_and_goes_on():
    """Its running mean would be infinite for ever, and no step would move again."""
    adam = Adam(0.1)
    theta = adam.step(np.zeros(2), np.ones(2))
    with pytest.raises(ValueError, match="^grad: got one of infinite norm, wants"):
        adam.step(theta, np.array([1e200, 1.0]))
    np.testing.assert_allclose(adam.step(theta, np.ones(2)), [-0.2, -0.2], rtol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", (np.float16(0.5), np.float32(0.5), np.float64(0.5)))
def test_numbers_of_numpy(number):
    for cls in (SGD, Adam, Muon):
        cls(number, weight_decay=number)
    assert np.array_equal(clip_global_norm(START, number), clip_global_norm(START, 0.5))


def test_the_example_of_the_docstring():
    """As it is pasted into a file. From m = 0 and g = 2, then -1: the signs of 0.2 and of
    0.9 * 0.02 - 0.1."""
    text = optimizers.__doc__
    text = text[text.index("    import numpy as np"):text.index("`python experiments.py")]
    names = {}
    exec(textwrap.dedent(text), names)
    path = trajectory(names["Lion"](lr=0.1), np.array([1.0]), np.array([[2.0], [-1.0]]))
    np.testing.assert_allclose(path[:, 0], [0.9, 1.0])


@pytest.mark.parametrize("argument, call, values", (
    ("lr", SGD, (0, -1.0, np.nan, np.inf, "fast")), ("lr", Adam, (0,)),
    ("momentum", partial(SGD, 0.1), (1.0, -0.1)), ("beta1", partial(Adam, 0.1), (1.0,)),
    ("beta2", partial(Adam, 0.1, 0.9), (2,)), ("eps", partial(Adam, 0.1, 0.9, 0.9), (0,)),
    ("weight_decay", partial(SGD, 0.1, 0.9), (-1, np.inf)),
    ("weight_decay", partial(Adam, 0.1, 0.9, 0.9, 1e-8), (-1,)),
    ("granularity", partial(NormalizedSGD, 0.1, 0.9), ("column", None)),
    ("params", lambda x: NormalizedSGD(0.1).step(x, x), (
        START, np.zeros((0, 2, 3, 3)), np.zeros((1, 2, 0, 0)))),  # no group, no root mean square
    ("params", lambda x: Muon(0.1).step(x, x), (START,)),
    ("params", lambda x: SGD(0.1).step(x, START), (START * np.nan,)),
    ("grad", partial(Adam(0.1).step, START), (START * np.nan, START * 1j)),
    ("limit", partial(clip_global_norm, START), (0,)),
    ("grad", partial(clip_global_norm, limit=1), (np.full(3, 1e300), [[1], [2, 3]]))))
def test_bad_input_is_named(argument, call, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{argument}: got .*, wants"):
            call(value)


def test_a_network_without_attention_trains_all_entries():
    prompts = mlp.Columns(np.ones((4, 6)), np.ones(4))
    with pytest.raises(ValueError, match=r"^params: got shape \(3, 2, 5, 5\), wants .*full=True$"):
        mlp.network_loss_and_grad(np.ones((3, 2, 5, 5)), prompts)


def test_shapes_that_groups_and_networks_cannot_have_are_named():
    """An empty array has no root mean square; a network without attention trains all entries."""
    for empty in (np.zeros((0, 2, 3, 3)), np.zeros((1, 2, 0, 0))):
        with pytest.raises(ValueError, match="^params: got shape .*, wants"):
            NormalizedSGD(0.1).step(empty, empty)
    prompts = mlp.Columns(np.ones((4, 6)), np.ones(4))
    with pytest.raises(ValueError, match=r"^params: got shape \(3, 2, 5, 5\), wants .*full=True$"):
        mlp.network_loss_and_grad(np.ones((3, 2, 5, 5)), prompts)
