"""The model beside its derivatives (test_gradient.py checks those): a layer and a trained layer in
closed form, extreme scores, chunks of prompts, and input that is wrong."""

import numpy as np
import pytest

import data
import linattn
import mlp
import optimizers


def problem(batch):
    rng = np.random.default_rng(0)
    params = linattn.init_params(rng, 3, 3, std=0.5)
    return params, data.sample_prompts(rng, batch, 5, 3, second_moment=1.0)


def test_one_layer_is_one_gradient_step():
    """With Q = -c I the prediction is c <(1/n) sum y_i x_i, x>: plus, thanks to the minus sign."""
    prompts = data.sample_prompts(np.random.default_rng(0), 6, 8, 3)
    params = np.zeros((1, 2, 3, 3))
    params[0, 1] = -0.7 * np.eye(3)
    x, y, query = prompts.Z[:, :3, :8], prompts.Z[:, 3, :8], prompts.Z[:, :3, 8]
    step = 0.7 * np.einsum("bj,bij,bi->b", y, x, query) / 8
    np.testing.assert_allclose(linattn.predict(params, prompts.Z), step, rtol=1e-12)


def test_large_scores():
    """Softmax does not change when all scores grow by the same number, here 1,000 for every key:
    exp(1000) would overflow. The scores grow so where x starts with a 1 in all columns."""
    for activation in ("softmax", "softmax/n"):
        rng = np.random.default_rng(0)
        Z = rng.standard_normal((6, 4, 9))
        Z[:, 0] = 1
        prompts = data.Prompts(Z, rng.standard_normal(6))
        params = linattn.init_params(rng, 1, 3, std=0.5, full=True)
        loss, grad = linattn.loss_and_grad(params, prompts, activation)
        for more in (1000, -1000):
            moved = params.copy()
            moved[0, 1, 0, 0] += more  # Q's entry: x_1 * 1000 * x_1 in every score
            again = linattn.loss_and_grad(moved, prompts, activation)
            assert again[0] == pytest.approx(loss, rel=1e-11)
            np.testing.assert_allclose(again[1], grad, atol=1e-11)


def test_softmax_of_scores_far_apart_takes_the_best_key():
    """With scores in the thousands the weights are 1 for one key and 0 for the others: attention
    reads that key's label."""
    _, prompts = problem(50)
    params = np.zeros((1, 2, 3, 3))
    params[0, 1] = 1e6 * np.eye(3)
    x, y, query = prompts.Z[:, :3, :5], prompts.Z[:, 3, :5], prompts.Z[:, :3, 5]
    best = np.einsum("bij,bi->bj", x, query).argmax(axis=1)  # of the keys in the context
    label = y[np.arange(50), best]
    np.testing.assert_allclose(linattn.predict(params, prompts.Z, "softmax"), -label)
    # softmax/n sees the query's own key, too; where that is the best one its mask leaves nothing
    own = (query * query).sum(axis=1) > np.einsum("bij,bi->bj", x, query).max(axis=1)
    assert own.any() and not own.all()
    wanted = np.where(own, 0, -label / 5)
    np.testing.assert_allclose(linattn.predict(params, prompts.Z, "softmax/n"), wanted)


def test_chunks_do_not_change_the_sum(monkeypatch):
    params, prompts = problem(50)
    whole = [linattn.loss_and_grad(params, prompts, name) for name in linattn.ACTIVATIONS]
    whole_hessian = linattn.hessian(params, prompts)
    whole_diagonal = linattn.hessian_diagonal(params, prompts)
    monkeypatch.setattr(linattn, "CHUNK", 300)
    sizes = []

    def record(params, G, q, target):
        sizes.append(len(target))
        return np.float64(0), 0

    linattn._over_chunks(record, params, linattn.compress(prompts))
    assert sizes == [18, 18, 14]
    for name, (loss, grad) in zip(linattn.ACTIVATIONS, whole):
        again = linattn.loss_and_grad(params, prompts, name)
        assert again[0] == pytest.approx(loss, rel=1e-13)
        np.testing.assert_allclose(again[1], grad, atol=1e-12 * abs(grad).max())
    for again, whole in ((linattn.hessian(params, prompts), whole_hessian),
                         (linattn.hessian_diagonal(params, prompts), whole_diagonal)):
        np.testing.assert_allclose(again, whole, atol=1e-12 * abs(whole).max())


def test_training_reaches_the_closed_form_of_one_layer():
    """x, w ~ N(0, I): the best Q is -c I, c = n/(n+d+1), with loss d(d+1)/(n+d+1)."""
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
    usual = linattn.init_params(np.random.default_rng(0))
    assert usual.shape == (3, 2, 5, 5) and usual.std() == pytest.approx(0.05, rel=0.1)


def test_init_mlp_params():
    """Weights and biases of the MLP fill +-1 / sqrt(5) and +-1 / sqrt(30), whatever std is; the
    attention's entries are Gaussian."""
    params = mlp.init_mlp_params(np.random.default_rng(0), std=0.2)
    assert params.shape == (30 * 5 + 30 + 5 * 30 + 5 + 3 * 2 * 6 * 6,)
    W1, b1, W2, b2, attention = np.split(params, np.cumsum([150, 30, 150, 5]))
    for part, bound in ((W1, 5**-0.5), (b1, 5**-0.5), (W2, 30**-0.5)):
        assert 0.9 * bound < abs(part).max() < bound and part.min() < 0 < part.max()
        assert part.std() == pytest.approx(bound / 3**0.5, rel=0.15)
    assert 0 < abs(b2).max() < 30**-0.5
    assert attention.std() == pytest.approx(0.2, rel=0.1) and abs(attention).max() > 0.45


def test_predictions_from_prompts_and_their_gram_form():
    params, prompts = problem(7)
    wanted = linattn._textbook_forward(linattn._embed(params, 4), prompts.Z, "linear")[0]
    for given in (prompts.Z, linattn.compress(prompts)):
        np.testing.assert_allclose(linattn.predict(params, given), wanted, rtol=1e-12)
    with pytest.raises(ValueError, match="^Z: got"):
        linattn.predict(params, linattn.compress(prompts), "softmax")


RNG = np.random.default_rng(0)
PARAMS, PROMPTS = problem(7)
GRAM = linattn.compress(PROMPTS)
MLP_PARAMS = mlp.init_mlp_params(RNG, d=3)
NAN = PROMPTS.Z.copy()
NAN[0, 0, 0] = np.nan


@pytest.mark.parametrize("call, argument", [
    (lambda: linattn.init_params(0), "rng"),
    (lambda: linattn.init_params(RNG, layers=0), "layers"),
    (lambda: linattn.init_params(RNG, d=2.5), "d"),
    (lambda: linattn.init_params(RNG, std=-0.1), "std"),
    (lambda: linattn.init_params(RNG, std=np.nan), "std"),
    (lambda: linattn.init_params(RNG, full="no"), "full"),
    (lambda: linattn.predict(PARAMS * np.nan, PROMPTS.Z), "params"),
    (lambda: linattn.predict([[1], [2, 3]], PROMPTS.Z), "params"),
    (lambda: linattn.predict(PARAMS, PROMPTS.Z[0]), "Z"),
    (lambda: linattn.predict(PARAMS, PROMPTS.Z[:, :, :1]), "Z"),
    (lambda: linattn.predict(PARAMS, PROMPTS.Z[:0]), "Z"),
    (lambda: linattn.predict(PARAMS, NAN), "Z"),
    (lambda: linattn.predict(PARAMS, NAN, "relu"), "Z"),
    (lambda: linattn.predict(PARAMS, "prompts"), "Z"),
    (lambda: linattn.predict(PARAMS, PROMPTS.Z, "tanh"), "activation"),
    (lambda: linattn.predict(PARAMS, PROMPTS.Z, ["linear"]), "activation"),
    (lambda: linattn.loss_and_grad(PARAMS, PROMPTS, "tanh"), "activation"),
    (lambda: linattn.loss_and_grad(PARAMS, GRAM, "softmax"), "prompts"),
    (lambda: linattn.loss_and_grad(PARAMS, GRAM._replace(q=np.zeros(3))), "Gram"),
    (lambda: linattn.loss_and_grad(PARAMS, GRAM._replace(G=GRAM.G[:3])), "Gram"),
    (lambda: linattn.loss_and_grad(PARAMS, GRAM._replace(target=1.0)), "Gram"),
    (lambda: linattn.loss_and_grad(PARAMS, GRAM._replace(G=np.nan * GRAM.G)), "G"),
    (lambda: linattn.loss_and_grad(PARAMS, PROMPTS._replace(Z=NAN)), "Z"),
    (lambda: linattn.loss_and_grad(PARAMS, PROMPTS._replace(target=np.zeros(3))), "target"),
    (lambda: linattn.loss_and_grad(PARAMS, PROMPTS._replace(target=np.full(7, np.inf))), "target"),
    (lambda: linattn.loss_and_grad(PARAMS[0], PROMPTS), "params"),
    (lambda: linattn.loss_and_grad(PARAMS[:, :1], PROMPTS), "params"),
    (lambda: linattn.loss_and_grad(PARAMS[:, :, :2, :2], PROMPTS), "params"),
    (lambda: linattn.loss_and_grad(PARAMS, PROMPTS.Z), "prompts"),
    (lambda: linattn.loss_and_grad(PARAMS * np.nan, PROMPTS), "params"),
    (lambda: linattn.textbook_loss_and_grad(PARAMS, PROMPTS, "tanh"), "activation"),
    (lambda: linattn.textbook_loss_and_grad(PARAMS, GRAM), "prompts"),
    (lambda: linattn.textbook_loss_and_grad(PARAMS * np.nan, PROMPTS), "params"),
    (lambda: linattn.hessian_vector_product(PARAMS, PARAMS[0], PROMPTS), "v"),
    (lambda: linattn.hessian_vector_product(PARAMS, PARAMS * np.nan, PROMPTS), "v"),
    (lambda: linattn.hessian_vector_product(PARAMS, PARAMS * 1j, PROMPTS), "v"),
    (lambda: linattn.hessian_vector_product(PARAMS * np.nan, PARAMS, PROMPTS), "params"),
    (lambda: linattn.hessian_vector_product(PARAMS * 1j, PARAMS, PROMPTS), "params"),
    (lambda: linattn.curvature(PARAMS, 0 * PARAMS, PROMPTS), "v"),
    (lambda: linattn.curvature(PARAMS, PARAMS * np.nan, PROMPTS), "v"),
    (lambda: linattn.curvature(PARAMS, PARAMS[0], PROMPTS), "v"),
    (lambda: linattn.curvature(PARAMS, "upwards", PROMPTS), "v"),
    (lambda: linattn.hessian(PARAMS * 1j, PROMPTS), "params"),
    (lambda: linattn.hessian(PARAMS[0], PROMPTS), "params"),
    (lambda: linattn.hessian_diagonal(PARAMS * 1j, PROMPTS), "params"),
    (lambda: linattn.hessian_diagonal(PARAMS[0], PROMPTS), "params"),
    (lambda: mlp.init_mlp_params(RNG, hidden=0), "hidden"),
    (lambda: mlp.mlp_loss_and_grad(MLP_PARAMS, PROMPTS, layers=0), "layers"),
    (lambda: mlp.mlp_loss_and_grad(MLP_PARAMS, GRAM), "prompts"),
    (lambda: mlp.mlp_hessian_diagonal(MLP_PARAMS, GRAM), "prompts"),
    (lambda: mlp.mlp_hessian_diagonal(MLP_PARAMS[1:], PROMPTS), "params"),
    (lambda: mlp.mlp_loss_and_grad(MLP_PARAMS[1:], PROMPTS), "params"),
    (lambda: mlp.mlp_loss_and_grad(MLP_PARAMS[:20], PROMPTS), "params"),
    (lambda: mlp.mlp_loss_and_grad(MLP_PARAMS[None], PROMPTS), "params"),
    (lambda: mlp.mlp_loss_and_grad(MLP_PARAMS * np.nan, PROMPTS), "params"),
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
    v = np.full(PARAMS.shape, -128, np.int8)  # whose absolute value wraps, too
    for function in (linattn.hessian_vector_product, linattn.curvature):
        wanted = function(PARAMS, v.astype(float), PROMPTS)
        assert np.array_equal(function(PARAMS, v, PROMPTS), wanted)
