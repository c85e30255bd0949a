"""How to check a gradient that was derived by hand. Read this file from top to bottom.

1. Central differences on a single number: grad = (f(x + h) - f(x - h)) / 2h.
2. What hides a mistake: small parameters, small errors, one tolerance for large and small tensors.
3. Central differences for every tensor.
4. The complex step, grad = Im f(x + ih) / h, which does not round: nine digits become fourteen. From
   here on it checks every model.
5. A second form of the same thing: the Gram recursion against the definition.
6. The paper's formula, one prompt at a time: 3 and 4 check the derivative of whatever was coded,
   this one that the right thing was coded.
7. The MLP in front.
8. A Transformer, and a network without attention.
9. Second derivatives: the Hessian against differences of gradients, and its diagonal.
"""

from functools import partial

import numpy as np
import pytest

import data
import linattn
import mlp


# ---- 1. Central differences on a single number ---------------------------------------------------

def test_one_number():
    """One layer, one prompt with d = 1. Only Q can move the prediction, so the model is

        prediction = -Q x (x_1 y_1 + x_2 y_2) / 2 = -Q * 3 * (0.5 - 2) / 2 = 2.25 Q

    and dLoss/dQ = 2 (prediction - target) * 2.25 = 2 (0.9 - 0.7) * 2.25 = 0.9 at Q = 0.4.
    """
    Z = np.array([[[1.0, 2.0, 3.0],  # x_1, x_2, x
                   [0.5, -1.0, 0.0]]])  # y_1, y_2, and the query's label, which is asked for
    prompts = data.Prompts(Z, target=np.array([0.7]))

    def loss(Q):
        params = np.array([[[[0.2]], [[Q]]]])  # P, which has no part in it, and Q
        return linattn.loss_and_grad(params, prompts)[0]

    # f(x + h) = f + h f' + h^2/2 f'' + ...: in f(x + h) - f(x - h) the f'' falls out, so what is
    # neglected is of order h^2 = 1e-10. A smaller h would round more: f has 16 digits, of which the
    # first four, in which f(x + h) and f(x - h) agree, are lost in the difference.
    h = 1e-5
    difference = (loss(0.4 + h) - loss(0.4 - h)) / (2 * h)
    assert difference == pytest.approx(0.9, rel=1e-8)

    grad = linattn.loss_and_grad(np.array([[[[0.2]], [[0.4]]]]), prompts)[1]
    assert grad[0, 1, 0, 0] == pytest.approx(0.9, rel=1e-14)
    assert grad[0, 0, 0, 0] == 0


# ---- 2. What hides a mistake ---------------------------------------------------------------------

def problem(full=False, layers=3, covariates="gaussian", activation="linear", seed=0):
    """Parameters and prompts of order 1, targets that are not the prompts' own, and the function
    params -> (loss, gradient)."""
    rng = np.random.default_rng(seed)
    params = linattn.init_params(rng, layers, 3, std=0.5, full=full)
    prompts = data.sample_prompts(rng, 7, 5, 3, covariates, shape=1.0, second_moment=1.0)
    prompts = prompts._replace(target=rng.standard_normal(7))
    return params, prompts, partial(linattn.loss_and_grad, prompts=prompts, activation=activation)


def test_small_parameters_hide_a_mistake():
    """The gradient is a polynomial in the parameters. Where they are small it is nearly constant:
    every term with a weight in it, that is most of the backward pass, is less than a thousandth of
    it, and a check to three digits would see none of them. At parameters of order 1 they are most
    of it.
    """
    params, _, loss_and_grad = problem()
    at_zero = loss_and_grad(0 * params)[1][:, 1]  # the gradient of the Q

    def part_with_weights(scale):
        grad = loss_and_grad(scale * params)[1][:, 1]
        return np.abs(grad - at_zero).max() / np.abs(at_zero).max()

    assert part_with_weights(0.001) < 0.001
    assert part_with_weights(1) > 0.5


def test_small_errors_hide_a_mistake():
    """The backward pass starts from prediction - target. Where the model is right that is 0, and so
    is the gradient, whatever the backward pass does with it. Hence the random targets."""
    params, prompts, _ = problem()
    right = prompts._replace(target=linattn.predict(params, prompts.Z))
    assert np.abs(linattn.loss_and_grad(params, right)[1]).max() < 1e-12


def assert_close(got, wanted, tolerance):
    """Per tensor, P and Q of each layer, relative to its largest entry: the tensors differ in size,
    and one tolerance for all would let the small ones be wrong."""
    assert got.shape == wanted.shape
    for l, i in np.ndindex(len(got), 2):
        error = np.abs(got[l, i] - wanted[l, i]).max()
        size = np.abs(wanted[l, i]).max()
        assert error <= tolerance * size, f"{'PQ'[i]}_{l}: error {error:.1e} at size {size:.1e}"


# ---- 3. Central differences for every tensor -----------------------------------------------------

@pytest.mark.parametrize("activation", linattn.ACTIVATIONS)
def test_gradient_against_central_differences(activation, h=1e-5):
    params, _, loss_and_grad = problem(layers=2, activation=activation)
    numerical = np.empty_like(params)
    for index in np.ndindex(params.shape):
        step = np.zeros_like(params)
        step[index] = h
        numerical[index] = (loss_and_grad(params + step)[0] - loss_and_grad(params - step)[0]) / (
            2 * h)
    assert_close(loss_and_grad(params)[1], numerical, 1e-6)


# ---- 4. The complex step -------------------------------------------------------------------------

CASES = [(activation, full, layers, "gaussian") for activation in linattn.ACTIVATIONS
         for full in (False, True) for layers in (1, 2, 3)]
CASES += [("linear", True, 3, covariates) for covariates in data.FAMILIES[1:]]


def exact_gradient(loss_and_grad, params, h=1e-20):
    """f(x + ih) = f + ih f' - h^2/2 f'' - ...: f' stands alone in the imaginary part, nothing is
    subtracted, and h may be so small that h^2 vanishes. The forward pass must be analytic: no abs,
    no conjugate, comparisons by the real part."""
    units = np.eye(params.size).reshape(-1, *params.shape)
    slopes = [loss_and_grad(params + 1j * h * unit)[0].imag / h for unit in units]
    return np.reshape(slopes, params.shape)


@pytest.mark.parametrize("activation, full, layers, covariates", CASES)
def test_gradient_against_complex_step(activation, full, layers, covariates):
    params, _, loss_and_grad = problem(full, layers, covariates, activation)
    loss, grad = loss_and_grad(params)
    assert isinstance(loss, float)
    assert_close(grad, exact_gradient(loss_and_grad, params), 1e-12)
    for l, i in np.ndindex(layers, 2):  # or else 0 might have been compared with 0
        last_P_block = not full and (l, i) == (layers - 1, 0)  # which cannot reach the output
        assert grad[l, i].any() != last_P_block


# ---- 5. A second form ----------------------------------------------------------------------------

@pytest.mark.parametrize("full", (False, True))
@pytest.mark.parametrize("layers", (1, 2, 3))
@pytest.mark.parametrize("covariates", ("gaussian", "student"))
def test_gram_form_equals_textbook(full, layers, covariates):
    params, prompts, loss_and_grad = problem(full, layers, covariates)
    loss, grad = loss_and_grad(params)
    textbook_loss, textbook_grad = linattn.textbook_loss_and_grad(params, prompts)
    assert loss == pytest.approx(textbook_loss, rel=1e-13)
    assert_close(grad, textbook_grad, 1e-12)
    again = linattn.loss_and_grad(params, linattn.compress(prompts))
    assert again[0] == loss and np.array_equal(again[1], grad)


# ---- 6. The paper's formula ----------------------------------------------------------------------

def attention(Z, Q, activation):
    """M act(Z^T Q Z) / n of one prompt with every matrix written out; a row is a key, a column a
    query."""
    n = Z.shape[1] - 1
    M = np.diag([1.0] * n + [0.0])
    S = Z.T @ Q @ Z
    if activation == "linear":
        return M @ S / n
    if activation == "relu":
        return M @ np.maximum(S, 0) / n
    E = np.exp(S)
    if activation == "softmax":  # over the n context keys, whose weights sum to 1: no 1/n
        return M @ E / (M @ E).sum(axis=0)
    return M @ (E / E.sum(axis=0)) / n  # softmax/n: over all n + 1 keys, then times M / n


@pytest.mark.parametrize("activation", linattn.ACTIVATIONS)
@pytest.mark.parametrize("full", (False, True))
def test_forward_is_the_papers_formula(activation, full):
    params, prompts, loss_and_grad = problem(full, activation=activation)
    predictions = []
    for Z in prompts.Z:
        for small_P, small_Q in params:
            P, Q = np.zeros((4, 4)), np.zeros((4, 4))
            P[-1, -1] = 1  # what the restricted parametrisation fixes
            k = len(small_P)
            P[:k, :k], Q[:k, :k] = small_P, small_Q
            Z = Z + P @ Z @ attention(Z, Q, activation)
        predictions.append(-Z[-1, -1])
    got = linattn.predict(params, prompts.Z, activation)
    np.testing.assert_allclose(got, predictions, rtol=1e-11)
    error = np.array(predictions) - prompts.target
    assert loss_and_grad(params)[0] == pytest.approx(np.mean(error**2), rel=1e-11)


# ---- 7. The MLP in front -------------------------------------------------------------------------

HIDDEN = 4


def mlp_problem(layers):
    params = mlp.init_mlp_params(np.random.default_rng(1), layers, 3, HIDDEN, std=0.5)
    prompts = problem()[1]
    return params, prompts, partial(mlp.mlp_loss_and_grad, prompts=prompts, layers=layers)


def tensors(flat, layers):
    """The named parts of a flat array of parameters."""
    shapes = dict(W1=(HIDDEN, 3), b1=(HIDDEN,), W2=(3, HIDDEN), b2=(3,))
    parts = {}
    for name, shape in shapes.items():
        size = np.prod(shape)
        parts[name], flat = flat[:size].reshape(shape), flat[size:]
    return dict(parts, attention=flat.reshape(layers, 2, 4, 4))


def assert_mlp_close(got, wanted, layers, tolerance):
    got, wanted = tensors(got, layers), tensors(wanted, layers)
    assert_close(got.pop("attention"), wanted.pop("attention"), tolerance)
    for name in wanted:
        error, size = np.abs(got[name] - wanted[name]).max(), np.abs(wanted[name]).max()
        assert 0 < size and error <= tolerance * size, f"{name}: {error:.1e} at size {size:.1e}"


@pytest.mark.parametrize("layers", (1, 2, 3))
def test_mlp_gradient_against_complex_step(layers, monkeypatch):
    params, _, loss_and_grad = mlp_problem(layers)
    monkeypatch.setattr(linattn, "CHUNK", 100)  # two prompts at a time
    assert_mlp_close(loss_and_grad(params)[1], exact_gradient(loss_and_grad, params), layers, 1e-12)


@pytest.mark.parametrize("layers", (1, 3))
def test_mlp_is_attention_on_its_features(layers):
    params, prompts, loss_and_grad = mlp_problem(layers)
    part = tensors(params, layers)
    Z = prompts.Z.copy()
    for b, column in np.ndindex(len(Z), Z.shape[2]):
        x = Z[b, :3, column]
        Z[b, :3, column] = part["W2"] @ np.maximum(part["W1"] @ x + part["b1"], 0) + part["b2"]
    wanted = linattn.textbook_loss_and_grad(part["attention"], prompts._replace(Z=Z))
    loss, grad = loss_and_grad(params)
    assert loss == pytest.approx(wanted[0], rel=1e-12)
    assert_close(tensors(grad, layers)["attention"], wanted[1], 1e-12)


# ---- 8. A Transformer, and a network without attention -------------------------------------------

def relative(name, full, layers):
    """Parameters, what the model reads, and params, what it reads -> (loss, gradient)."""
    rng = np.random.default_rng(3)
    prompts = data.sample_prompts(rng, 7, 5, 3)
    if name == "transformer":
        params = mlp.init_transformer_params(rng, layers, 3, std=0.5, full=full)
        return params, prompts._replace(target=prompts.target + 1), mlp.transformer_loss_and_grad
    params = linattn.init_params(rng, layers, 3, std=0.5, full=full)
    return params, mlp.columns(prompts), mlp.network_loss_and_grad


@pytest.mark.parametrize("name, full", (("transformer", False), ("transformer", True),
                                        ("network", True)))
@pytest.mark.parametrize("layers", (1, 3))
def test_relatives_against_complex_step(name, full, layers, monkeypatch):
    params, read, gradient = relative(name, full, layers)
    monkeypatch.setattr(linattn, "CHUNK", 100)  # two prompts at a time
    exact = exact_gradient(lambda shifted: gradient(shifted, read), params)
    assert_close(gradient(params, read)[1], exact, 1e-12)


@pytest.mark.parametrize("full", (False, True))
def test_the_transformer_one_column_at_a_time(full):
    params, prompts, gradient = relative("transformer", full, 3)
    k, errors = params.shape[-1], []
    for Z, target in zip(prompts.Z, prompts.target):
        for matrices in params:
            P, Q = np.zeros((2, 4, 4))
            P[3, 3], P[:k, :k], Q[:k, :k] = 1 if not full else 0, matrices[0], matrices[1]
            moved = np.empty_like(Z)
            for column, z in enumerate(Z.T):
                weights = np.exp(Z[:, :-1].T @ Q @ z)
                after = z + P @ (Z[:, :-1] @ weights / weights.sum())
                hidden = [max(0, row @ after[:k]) for block in matrices[2:6] for row in block]
                for block, part in zip(matrices[6:], np.split(np.array(hidden), 4)):
                    after[:k] += block @ part
                moved[:, column] = after
            Z = moved
        errors.append(-Z[-1, -1] - target)
    assert gradient(params, prompts)[0] == pytest.approx(np.mean(np.square(errors)), rel=1e-12)


def test_the_network_one_column_at_a_time():
    """On the query's x, with its label 0, and the target <w, x> of w = (1, 1, 1)."""
    params, read, gradient = relative("network", True, 3)
    queries = data.sample_prompts(np.random.default_rng(3), 7, 5, 3).Z[:, :3, -1]
    errors = []
    for x in queries:
        z = np.append(x, 0)
        for P, Q in params:
            z = z + P @ (Q @ z)
        errors.append(-z[3] - x.sum())
    assert gradient(params, read)[0] == pytest.approx(np.mean(np.square(errors)), rel=1e-12)


# ---- 9. Second derivatives -----------------------------------------------------------------------

def difference_of_gradients(loss_and_grad, params, v, h=1e-6):
    return (loss_and_grad(params + h * v)[1] - loss_and_grad(params - h * v)[1]) / (2 * h)


@pytest.mark.parametrize("activation", linattn.ACTIVATIONS)
@pytest.mark.parametrize("full", (False, True))
def test_hessian_vector_product(activation, full):
    """The complex step in the gradient, H v = Im grad(params + ihv) / h, for v of any length."""
    params, prompts, loss_and_grad = problem(full, activation=activation)
    v = np.random.default_rng(1).standard_normal(params.shape)
    gradient = partial(linattn.loss_and_grad, activation=activation)
    product = linattn.hessian_vector_product(params, v, prompts, gradient)
    difference = difference_of_gradients(loss_and_grad, params, v)
    np.testing.assert_allclose(product, difference, atol=1e-7 * np.abs(product).max())
    for scale in (1e-100, 1e100):
        scaled = linattn.hessian_vector_product(params, scale * v, prompts, gradient) / scale
        np.testing.assert_allclose(scaled, product, atol=1e-13 * np.abs(product).max())


@pytest.mark.parametrize("layers", (1, 2, 3))
@pytest.mark.parametrize("full", (False, True))
def test_hessian(full, layers):
    params, prompts, _ = problem(full, layers)
    hessian = linattn.hessian(params, prompts)
    assert np.array_equal(hessian, hessian.T)  # it fills one half with the other; this does not:
    units = np.eye(params.size).reshape(-1, *params.shape)
    columns = [linattn.hessian_vector_product(params, unit, prompts).ravel() for unit in units]
    np.testing.assert_allclose(hessian, columns, atol=1e-13 * np.abs(hessian).max())


@pytest.mark.parametrize("layers", (1, 2, 3, 4))
@pytest.mark.parametrize("full", (False, True))
def test_hessian_diagonal(full, layers):
    params, prompts, _ = problem(full, layers)
    params = params / 2 if layers == 4 else params  # or one entry would hide all others
    diagonal = linattn.hessian_diagonal(params, prompts)
    assert_close(diagonal, np.diag(linattn.hessian(params, prompts)).reshape(params.shape), 1e-12)


@pytest.mark.parametrize("scale", (1e-200, 1, 1e200))
def test_curvature(scale):
    params, prompts, _ = problem()
    v = np.random.default_rng(1).standard_normal(params.shape)
    along = v.ravel() @ linattn.hessian(params, prompts) @ v.ravel() / np.sum(v**2)
    assert linattn.curvature(params, scale * v, prompts) == pytest.approx(along, rel=1e-11)


def test_second_derivatives_of_the_mlp():
    params, prompts, loss_and_grad = mlp_problem(3)
    gradient = mlp.mlp_loss_and_grad
    hessian = np.array([linattn.hessian_vector_product(params, unit, prompts, gradient)
                        for unit in np.eye(params.size)])
    size = np.abs(hessian).max()
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12 * size)
    v = np.random.default_rng(2).standard_normal(params.size)
    difference = difference_of_gradients(loss_and_grad, params, v)
    np.testing.assert_allclose(hessian @ v, difference, atol=1e-6 * np.abs(difference).max())
    along = linattn.curvature(params, v, prompts, gradient)
    assert along == pytest.approx(v @ hessian @ v / (v @ v), abs=1e-12 * size)


@pytest.mark.parametrize("layers", (1, 2, 3))
def test_hessian_diagonal_of_the_mlp(layers, monkeypatch):
    """Entry by entry against a product with the unit vector, part by part of the parameters."""
    params, prompts, _ = mlp_problem(layers)
    monkeypatch.setattr(linattn, "CHUNK", 100)  # two prompts at a time
    gradient = partial(mlp.mlp_loss_and_grad, layers=layers)
    exact = [linattn.hessian_vector_product(params, unit, prompts, gradient)[i]
             for i, unit in enumerate(np.eye(params.size))]
    found = mlp.mlp_hessian_diagonal(params, prompts, layers)
    got, wanted = tensors(found, layers), tensors(np.array(exact), layers)
    for name in wanted:
        size = np.abs(wanted[name]).max()
        np.testing.assert_allclose(got[name], wanted[name], atol=1e-11 * size, err_msg=name)
