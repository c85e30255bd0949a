"""How to check a hand-written gradient.

1. Central differences: (f(x + h) - f(x - h)) / 2h, compared per named tensor (P_0, Q_0, ...) by the
   largest error relative to the largest entry, at parameters of order 1: with tiny weights a wrong
   term in a product hides behind the others. They agree to about 1e-9 and no better, for the
   difference rounds.
2. The complex step: Im f(x + ih) / h does not subtract, so it agrees to 1e-14.
3. A second, independent form: the Gram recursion against the textbook definition.
"""

import itertools

import numpy as np
import pytest

import data
import linattn

ACTIVATIONS = ("linear", "relu", "softmax")
H = 1e-20


def problem(full=False, layers=3, covariates="gaussian", d=3, n=5, batch=7, seed=0):
    """Parameters of order 1, prompts, and targets that are not the prompts' own: the error then
    plays the part of a random upstream gradient."""
    rng = np.random.default_rng(seed)
    params = linattn.init_params(rng, layers, d, std=0.5, full=full)
    prompts = data.sample_prompts(rng, batch, n, d, covariates, shape=1.0, scale=2.0)
    return params, prompts._replace(target=rng.standard_normal(batch))


def numerical_gradient(loss, params, h=1e-5):
    grad = np.empty_like(params)
    for i in np.ndindex(params.shape):
        step = np.zeros_like(params)
        step[i] = h
        grad[i] = (loss(params + step) - loss(params - step)) / (2 * h)
    return grad


def assert_close_per_tensor(got, wanted, tolerance):
    for l, (name, which) in itertools.product(range(len(got)), (("P", 0), ("Q", 1))):
        error = np.abs(got[l, which] - wanted[l, which]).max()
        size = np.abs(wanted[l, which]).max()
        assert error <= tolerance * size, f"{name}_{l}: error {error:.1e} at size {size:.1e}"


CASES = list(itertools.product(ACTIVATIONS, (False, True), (1, 2, 3), data.FAMILIES))


@pytest.mark.parametrize("activation, full, layers, covariates", CASES)
def test_gradient_against_central_differences(activation, full, layers, covariates):
    params, prompts = problem(full, layers, covariates)
    loss, grad = linattn.loss_and_grad(params, prompts, activation)
    numerical = numerical_gradient(lambda p: linattn.loss_and_grad(p, prompts, activation)[0], params)
    assert grad.shape == params.shape and isinstance(loss, float)
    if not full:  # cannot reach the output; the difference of two equal losses is exactly 0, too
        assert not grad[-1, 0].any() and not numerical[-1, 0].any()
        grad, numerical = grad.copy(), numerical.copy()
        grad[-1, 0] = numerical[-1, 0] = 1
    assert_close_per_tensor(grad, numerical, 1e-6)


@pytest.mark.parametrize("activation, full, layers, covariates", CASES)
def test_gradient_against_complex_step(activation, full, layers, covariates):
    params, prompts = problem(full, layers, covariates)
    grad = linattn.loss_and_grad(params, prompts, activation)[1]
    exact = np.empty_like(params)
    for i in np.ndindex(params.shape):
        shifted = params.astype(complex)
        shifted[i] += 1j * H
        exact[i] = linattn.loss_and_grad(shifted, prompts, activation)[0].imag / H
    assert_close_per_tensor(grad, exact, 1e-12)


@pytest.mark.parametrize("covariates", data.FAMILIES)
@pytest.mark.parametrize("layers", (1, 2, 4))
@pytest.mark.parametrize("full", (False, True))
def test_gram_form_equals_textbook(full, layers, covariates):
    params, prompts = problem(full, layers, covariates)
    loss, grad = linattn.loss_and_grad(params, prompts)
    textbook_loss, textbook_grad = linattn.textbook_loss_and_grad(params, prompts)
    assert loss == pytest.approx(textbook_loss, rel=1e-13)
    assert_close_per_tensor(grad, textbook_grad, 1e-12)
    again = linattn.loss_and_grad(params, linattn.compress(prompts))
    assert again[0] == loss and np.array_equal(again[1], grad)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("full", (False, True))
def test_forward_is_the_papers_formula(activation, full):
    """One prompt at a time, with the mask M written out: Z + (1/n) P Z M act(Z^T Q Z)."""
    params, prompts = problem(full, layers=2)
    batch, D, columns = prompts.Z.shape
    n, predictions = columns - 1, []
    M = np.diag([1.0] * n + [0.0])
    for Z in prompts.Z:
        for small_P, small_Q in params:
            P, Q = np.zeros((D, D)), np.zeros((D, D))
            P[-1, -1] = 1
            k = len(small_P)
            P[:k, :k], Q[:k, :k] = small_P, small_Q
            S = Z.T @ Q @ Z
            if activation == "softmax":  # over the context's rows alone; no 1/n
                W = np.exp(S) * np.diag(M)[:, None]
                W = n * W / W.sum(axis=0)
            else:
                W = np.maximum(S, 0) if activation == "relu" else S
            Z = Z + P @ Z @ M @ W / n
        predictions.append(-Z[-1, -1])
    np.testing.assert_allclose(linattn.predict(params, prompts.Z, activation), predictions, rtol=1e-12)
    error = np.array(predictions) - prompts.target
    assert linattn.loss_and_grad(params, prompts, activation)[0] == pytest.approx(np.mean(error**2))


def test_one_layer_is_one_gradient_step():
    """With Q = -c I the prediction is c <(1/n) sum y_i x_i, x>: plus, thanks to the minus sign."""
    prompts = data.sample_prompts(np.random.default_rng(0), 6, 8, 3)
    params = np.zeros((1, 2, 3, 3))
    params[0, 1] = -0.7 * np.eye(3)
    x, y, query = prompts.Z[:, :3, :8], prompts.Z[:, 3, :8], prompts.Z[:, :3, 8]
    step = 0.7 * np.einsum("bj,bij,bi->b", y, x, query) / 8
    np.testing.assert_allclose(linattn.predict(params, prompts.Z), step, rtol=1e-12)


def test_chunks_do_not_change_the_sum(monkeypatch):
    params, prompts = problem(batch=50)
    whole = [linattn.loss_and_grad(params, prompts, name) for name in ACTIVATIONS]
    whole_hessian = linattn.hessian(params, prompts)
    monkeypatch.setattr(linattn, "CHUNK", 300)
    sizes = []

    def record(params, G, q, target):
        sizes.append(len(target))
        return np.float64(0), 0

    linattn._over_chunks(record, params, linattn.compress(prompts))
    assert sizes == [18, 18, 14]
    for name, (loss, grad) in zip(ACTIVATIONS, whole):
        again = linattn.loss_and_grad(params, prompts, name)
        assert again[0] == pytest.approx(loss, rel=1e-13)
        assert_close_per_tensor(again[1] + 1, grad + 1, 1e-12)
    np.testing.assert_allclose(linattn.hessian(params, prompts), whole_hessian,
                               atol=1e-12 * abs(whole_hessian).max())


@pytest.mark.parametrize("layers", (1, 2, 3, 4))
@pytest.mark.parametrize("full", (False, True))
def test_hessian(full, layers):
    params, prompts = problem(full, layers)
    hessian = linattn.hessian(params, prompts)
    size = np.abs(hessian).max()
    assert hessian.shape == (params.size, params.size)
    assert np.array_equal(hessian, hessian.T)
    columns = np.array([linattn.hessian_vector_product(params, unit.reshape(params.shape), prompts).ravel()
                        for unit in np.eye(params.size)])  # knows nothing of the symmetry
    np.testing.assert_allclose(hessian, columns, atol=1e-13 * size)
    v = np.random.default_rng(1).standard_normal(params.shape)
    h = 1e-6
    difference = (linattn.loss_and_grad(params + h * v, prompts)[1]
                  - linattn.loss_and_grad(params - h * v, prompts)[1]) / (2 * h)
    product = linattn.hessian_vector_product(params, v, prompts)
    np.testing.assert_allclose(product, difference, atol=1e-7 * np.abs(product).max())
    np.testing.assert_allclose((hessian @ v.ravel()).reshape(v.shape), product, atol=1e-12 * size)
    np.testing.assert_allclose(linattn.hessian_diagonal(params, prompts).ravel(), np.diag(hessian),
                               atol=1e-13 * size)
    along = v.ravel() @ hessian @ v.ravel() / np.sum(v**2)
    assert linattn.curvature(params, v, prompts) == pytest.approx(along, abs=1e-12 * size)


# ---- The MLP in front ----

BLOCKS = ("W1", "b1", "W2", "b2", "P", "Q")


def mlp_problem(layers, hidden=4, d=3):
    """Parameters of order 1, and targets that are not the prompts' own."""
    prompts = problem(d=d)[1]
    params = linattn.init_mlp_params(np.random.default_rng(1), layers, d, hidden, std=0.5)
    return params, prompts, lambda p: linattn.mlp_loss_and_grad(p, prompts, layers)


def blocks(flat, layers, hidden=4, d=3):
    parts = np.split(flat, np.cumsum([hidden * d, hidden, d * hidden, d]))
    P_and_Q = parts.pop().reshape(layers, 2, -1)
    return dict(zip(BLOCKS, (*parts, P_and_Q[:, 0], P_and_Q[:, 1])))


def assert_close_per_block(got, wanted, layers, tolerance):
    got, wanted = blocks(got, layers), blocks(wanted, layers)
    for name in BLOCKS:
        error, size = np.abs(got[name] - wanted[name]).max(), np.abs(wanted[name]).max()
        assert 0 < size and error <= tolerance * size, f"{name}: error {error:.1e} at size {size:.1e}"


@pytest.mark.parametrize("layers", (1, 2, 3))
def test_mlp_gradient_against_central_differences(layers):
    params, _, function = mlp_problem(layers)
    numerical = numerical_gradient(lambda p: function(p)[0], params)
    assert_close_per_block(function(params)[1], numerical, layers, 1e-6)


@pytest.mark.parametrize("layers", (1, 2, 3))
def test_mlp_gradient_against_complex_step(layers, monkeypatch):
    params, _, function = mlp_problem(layers)
    monkeypatch.setattr(linattn, "CHUNK", 100)  # two prompts at a time
    exact = [function(params + 1j * H * unit)[0].imag / H for unit in np.eye(params.size)]
    assert_close_per_block(function(params)[1], np.array(exact), layers, 1e-12)


@pytest.mark.parametrize("layers", (1, 3))
def test_mlp_is_attention_on_its_features(layers):
    params, prompts, function = mlp_problem(layers)
    part = blocks(params, layers)
    W1, W2 = part["W1"].reshape(4, 3), part["W2"].reshape(3, 4)
    Z = prompts.Z.copy()
    for b, column in np.ndindex(len(Z), Z.shape[2]):
        x = Z[b, :3, column]
        Z[b, :3, column] = W2 @ np.maximum(W1 @ x + part["b1"], 0) + part["b2"]
    attention = np.stack([part["P"], part["Q"]], axis=1).reshape(layers, 2, 4, 4)
    loss, grad = linattn.textbook_loss_and_grad(attention, prompts._replace(Z=Z))
    assert function(params)[0] == pytest.approx(loss, rel=1e-12)
    got = function(params)[1][-attention.size :].reshape(attention.shape)
    assert_close_per_tensor(got, grad, 1e-12)


def test_second_derivatives_of_the_mlp():
    params, prompts, function = mlp_problem(3)

    def product(v):
        return linattn.hessian_vector_product(params, v, prompts, linattn.mlp_loss_and_grad)

    hessian = np.array([product(unit) for unit in np.eye(params.size)])
    size = np.abs(hessian).max()
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12 * size)
    v = np.random.default_rng(2).standard_normal(params.size)
    difference = (function(params + 1e-6 * v)[1] - function(params - 1e-6 * v)[1]) / 2e-6
    np.testing.assert_allclose(product(v), difference, atol=1e-6 * np.abs(difference).max())
    along = linattn.curvature(params, v, prompts, linattn.mlp_loss_and_grad)
    assert along == pytest.approx(v @ hessian @ v / (v @ v), abs=1e-12 * size)


def test_init_mlp_params():
    params = linattn.init_mlp_params(np.random.default_rng(0))
    assert params.shape == (30 * 5 + 30 + 5 * 30 + 5 + 3 * 2 * 6 * 6,)
    assert params.std() == pytest.approx(0.1, rel=0.1)


def test_training_reaches_the_closed_form_of_one_layer():
    """x, w ~ N(0, I): the best Q is -c I, c = n/(n+d+1), with loss d(d+1)/(n+d+1)."""
    import optimizers

    n, d = 20, 5
    rng = np.random.default_rng(0)
    params, adam, late, losses = linattn.init_params(rng, 1, d), optimizers.Adam(0.01), [], []
    for step in range(600):
        loss, grad = linattn.loss_and_grad(params, data.sample_prompts(rng, 1000, n, d))
        params = adam.step(params, grad)
        if step >= 300:
            late.append(params[0, 1])
            losses.append(loss)
    np.testing.assert_allclose(np.mean(late, axis=0), -n / (n + d + 1) * np.eye(d), atol=0.02)
    assert np.mean(losses) == pytest.approx(d * (d + 1) / (n + d + 1), rel=0.02)


def test_init_params():
    params = linattn.init_params(np.random.default_rng(0), 50, 6, std=0.05, full=True)
    assert params.shape == (50, 2, 7, 7)
    assert params.std() == pytest.approx(0.05, rel=0.05)
    assert linattn.init_params(np.random.default_rng(0)).shape == (3, 2, 5, 5)


PARAMS, PROMPTS = problem()
MLP_PARAMS = linattn.init_mlp_params(np.random.default_rng(0), d=3)
NAN = PROMPTS.Z.copy()
NAN[0, 0, 0] = np.nan


@pytest.mark.parametrize("call, argument", [
    (lambda: linattn.init_params(np.random.default_rng(0), layers=0), "layers"),
    (lambda: linattn.init_params(np.random.default_rng(0), d=2.5), "d"),
    (lambda: linattn.init_params(np.random.default_rng(0), std=-0.1), "std"),
    (lambda: linattn.init_params(np.random.default_rng(0), std=np.nan), "std"),
    (lambda: linattn.predict(PARAMS, PROMPTS.Z[0]), "Z"),
    (lambda: linattn.predict(PARAMS, PROMPTS.Z[:, :, :1]), "Z"),
    (lambda: linattn.predict(PARAMS, PROMPTS.Z[:0]), "Z"),
    (lambda: linattn.predict(PARAMS, NAN), "Z"),
    (lambda: linattn.predict(PARAMS, NAN, "relu"), "Z"),
    (lambda: linattn.predict(PARAMS, "prompts"), "Z"),
    (lambda: linattn.predict(PARAMS, PROMPTS.Z, "tanh"), "activation"),
    (lambda: linattn.predict(PARAMS, PROMPTS.Z, ["linear"]), "activation"),
    (lambda: linattn.loss_and_grad(PARAMS, PROMPTS, "tanh"), "activation"),
    (lambda: linattn.loss_and_grad(PARAMS, linattn.compress(PROMPTS), "softmax"), "prompts"),
    (lambda: linattn.loss_and_grad(PARAMS, PROMPTS._replace(Z=NAN)), "Z"),
    (lambda: linattn.loss_and_grad(PARAMS, PROMPTS._replace(target=np.zeros(3))), "target"),
    (lambda: linattn.loss_and_grad(PARAMS, PROMPTS._replace(target=np.full(7, np.inf))), "target"),
    (lambda: linattn.loss_and_grad(PARAMS[0], PROMPTS), "params"),
    (lambda: linattn.loss_and_grad(PARAMS[:, :1], PROMPTS), "params"),
    (lambda: linattn.loss_and_grad(PARAMS[:, :, :2, :2], PROMPTS), "params"),
    (lambda: linattn.loss_and_grad(PARAMS, PROMPTS.Z), "prompts"),
    (lambda: linattn.hessian_vector_product(PARAMS, PARAMS[0], PROMPTS), "v"),
    (lambda: linattn.curvature(PARAMS, 0 * PARAMS, PROMPTS), "v"),
    (lambda: linattn.init_mlp_params(np.random.default_rng(0), hidden=0), "hidden"),
    (lambda: linattn.mlp_loss_and_grad(MLP_PARAMS[1:], PROMPTS), "params"),
    (lambda: linattn.mlp_loss_and_grad(MLP_PARAMS[:20], PROMPTS), "params"),
    (lambda: linattn.mlp_loss_and_grad(MLP_PARAMS[None], PROMPTS), "params"),
    (lambda: linattn.mlp_loss_and_grad(MLP_PARAMS * np.nan, PROMPTS), "params"),
])
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: got .*, wants"):
        call()


def test_chunk_of_diverged_parameters_is_not_an_error():
    """Parameters may overflow while an optimizer diverges: the loss says so, nothing is raised."""
    with np.errstate(all="ignore"):
        assert not np.isfinite(linattn.loss_and_grad(PARAMS * 1e200, PROMPTS)[0])


def test_small_integers_do_not_wrap():
    """Entries of int8 multiply like numbers; so do the entries of a direction."""
    rng = np.random.default_rng(0)
    Z, target = rng.integers(-100, 100, (4, 3, 6)), np.ones(4)
    params = linattn.init_params(rng, 2, 2)
    wanted = linattn.loss_and_grad(params, data.Prompts(Z.astype(float), target))
    for form in (linattn.loss_and_grad, linattn.textbook_loss_and_grad):
        loss, grad = form(params, data.Prompts(Z.astype(np.int8), target))
        np.testing.assert_allclose(grad, wanted[1], rtol=1e-6)
        assert loss == pytest.approx(wanted[0])
