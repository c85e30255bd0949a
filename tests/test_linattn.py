"""The model beside its derivatives (test_gradient.py checks those): a layer and a trained layer in
closed form, extreme scores, chunks of prompts, initial weights, and input that is wrong."""

import timeit
from functools import partial

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


# ---- What a layer does ---------------------------------------------------------------------------

def test_one_layer_is_one_gradient_step():
    """With Q = -c I the prediction is c <(1/n) sum y_i x_i, x>: plus, thanks to the minus sign."""
    prompts = data.sample_prompts(np.random.default_rng(0), 6, 8, 3)
    params = np.zeros((1, 2, 3, 3))
    params[0, 1] = -0.7 * np.eye(3)
    x, y, query = prompts.Z[:, :3, :8], prompts.Z[:, 3, :8], prompts.Z[:, :3, 8]
    step = 0.7 * np.einsum("bj,bij,bi->b", y, x, query) / 8
    for form in (prompts.Z, linattn.compress(prompts)):
        np.testing.assert_allclose(linattn.predict(params, form), step, rtol=1e-12)


def test_training_reaches_the_closed_form_of_one_layer():
    """x, w ~ N(0, I): the best Q is -c I, c = n/(n+d+1), with loss d(d+1)/(n+d+1)."""
    n, d = 20, 5
    rng = np.random.default_rng(0)
    params, sgd, late, losses = linattn.init_params(rng, 1, d), optimizers.SGD(0.02), [], []
    for step in range(250):
        loss, grad = linattn.loss_and_grad(params, data.sample_prompts(rng, 1000, n, d))
        params = sgd.step(params, grad)
        if step >= 50:
            late.append(params[0, 1])
            losses.append(loss)
    np.testing.assert_allclose(np.mean(late, axis=0), -n / (n + d + 1) * np.eye(d), atol=0.02)
    assert np.mean(losses) == pytest.approx(d * (d + 1) / (n + d + 1), rel=0.02)


@pytest.mark.parametrize("activation", ("softmax", "softmax/n"))
@pytest.mark.parametrize("more", (1000, -1000))
def test_softmax_does_not_change_when_all_scores_grow(activation, more):
    """By 1,000, say, for every key: exp(1000) would overflow. So they grow where x starts with a 1
    in all columns."""
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((6, 4, 9))
    Z[:, 0] = 1
    prompts = data.Prompts(Z, rng.standard_normal(6))
    params = linattn.init_params(rng, 1, 3, std=0.5, full=True)
    moved = params.copy()
    moved[0, 1, 0, 0] += more  # Q's entry: x_1 * 1000 * x_1 in every score
    loss, grad = linattn.loss_and_grad(params, prompts, activation)
    moved_loss, moved_grad = linattn.loss_and_grad(moved, prompts, activation)
    assert moved_loss == pytest.approx(loss, rel=1e-11)
    np.testing.assert_allclose(moved_grad, grad, atol=1e-11)


@pytest.mark.filterwarnings("error")
def test_softmax_of_scores_of_any_size():
    """With scores of tens of thousands, of both signs, the largest takes all the weight."""
    rng = np.random.default_rng(0)
    Z = data.sample_prompts(rng, 50, 5, 3).Z
    params = np.zeros((1, 2, 3, 3))
    params[0, 1] = 1e4 * rng.standard_normal((3, 3))
    scores = np.einsum("bin,ij,bj->bn", Z[:, :3, :-1], params[0, 1], Z[:, :3, -1])
    assert scores.min() < -10000 and scores.max() > 10000
    read = Z[np.arange(50), 3, scores.argmax(axis=1)]
    np.testing.assert_allclose(linattn.predict(params, Z, "softmax"), -read, rtol=1e-12)
    assert np.isfinite(linattn.loss_and_grad(params, data.Prompts(Z, read), "softmax")[1]).all()


# ---- Chunks and kinds of numbers -----------------------------------------------------------------

PARAMS, PROMPTS = problem(7)
GRAM = linattn.compress(PROMPTS)
MLP_PARAMS = mlp.init_mlp_params(np.random.default_rng(0), d=3, hidden=4)
CALLS = {name: (partial(linattn.loss_and_grad, activation=name), PARAMS)
         for name in linattn.ACTIVATIONS}
CALLS |= {"textbook": (linattn.textbook_loss_and_grad, PARAMS),
          "hessian": (linattn.hessian, PARAMS), "diagonal": (linattn.hessian_diagonal, PARAMS),
          "mlp": (mlp.mlp_loss_and_grad, MLP_PARAMS),
          "mlp's diagonal": (mlp.mlp_hessian_diagonal, MLP_PARAMS)}


@pytest.mark.parametrize("name", CALLS)
def test_chunks_do_not_change_the_mean(name, monkeypatch):
    """50 prompts at once or, for 300 numbers, 18, 18 and 14 with a G of 4 x 4 each; with an S of
    6 x 6 eight at a time, and two."""
    call, params = CALLS[name]
    prompts = problem(50)[1]
    whole = call(params, prompts)
    monkeypatch.setattr(linattn, "CHUNK", 300)
    for got, wanted in zip(call(params, prompts), whole):  # loss and gradient, or rows
        np.testing.assert_allclose(got, wanted, atol=1e-12 * np.abs(wanted).max())
    sizes = []
    linattn._over_chunks(lambda _, G, q, target: sizes.append(len(q)) or (np.float64(0), 0),
                         params, linattn.compress(prompts))
    assert sizes == [18, 18, 14]


def test_small_integers_do_not_wrap():
    """Entries of int8 multiply like numbers, and -128 has an absolute value."""
    Z = np.random.default_rng(0).integers(-100, 100, PROMPTS.Z.shape)
    v = np.full(PARAMS.shape, -128)
    for call in (lambda Z, v: linattn.loss_and_grad(PARAMS, PROMPTS._replace(Z=Z)),
                 lambda Z, v: linattn.textbook_loss_and_grad(PARAMS, PROMPTS._replace(Z=Z)),
                 lambda Z, v: linattn.hessian_vector_product(PARAMS, v, PROMPTS),
                 lambda Z, v: (linattn.curvature(PARAMS, v, PROMPTS),)):
        for got, wanted in zip(call(Z.astype(np.int8), v.astype(np.int8)), call(Z, v)):
            assert np.array_equal(got, wanted)


def test_diverged_parameters_are_not_an_error():
    """Parameters may overflow while an optimizer diverges: the loss says so, nothing is raised."""
    with np.errstate(all="ignore"):
        assert not np.isfinite(linattn.loss_and_grad(PARAMS * 1e200, PROMPTS)[0])


# ---- Initial weights -----------------------------------------------------------------------------

@pytest.mark.filterwarnings("error")
def test_init_params():
    params = linattn.init_params(np.random.default_rng(0), 50, 6, std=0.05, full=True)
    assert params.shape == (50, 2, 7, 7)
    assert params.std() == pytest.approx(0.05, rel=0.05) and abs(params).max() > 0.15
    usual = linattn.init_params(np.random.default_rng(0))
    assert usual.shape == (3, 2, 5, 5) and usual.std() == pytest.approx(0.05, rel=0.1)
    sizes = dict(layers=np.int8(3), d=np.int8(5), hidden=np.int8(30))
    assert mlp.init_mlp_params(np.random.default_rng(0), **sizes).size == 30 * 6 + 5 * 31 + 216
    for integer in (np.int8, np.int32, np.uint64):  # any number of numpy, and without a warning
        again = linattn.init_params(np.random.default_rng(0), layers=integer(3), d=integer(5),
                                    std=np.float32(0.5))
        np.testing.assert_allclose(again, 10 * usual, rtol=1e-12)


def test_init_mlp_params():
    """Weights and biases of the MLP fill +-1 / sqrt(5) and +-1 / sqrt(30), whatever std is; the
    attention's entries are Gaussian."""
    params = mlp.init_mlp_params(np.random.default_rng(0), std=0.2)
    W1, b1, W2, b2, attention = np.split(params, np.cumsum([30 * 5, 30, 5 * 30, 5]))
    for part, bound in ((W1, 5**-0.5), (b1, 5**-0.5), (W2, 30**-0.5)):
        assert 0.9 * bound < abs(part).max() < bound and part.min() < 0 < part.max()
        assert part.std() == pytest.approx(bound / 3**0.5, rel=0.15)
    assert 0 < abs(b2).max() < 30**-0.5 and attention.shape == (3 * 2 * 6 * 6,)
    assert attention.std() == pytest.approx(0.2, rel=0.1) and abs(attention).max() > 0.45


# ---- Input that is wrong is named ----------------------------------------------------------------

NAN = np.where(np.arange(6) == 2, np.nan, PROMPTS.Z)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", CALLS)
def test_every_function_looks_at_its_params_and_prompts(name):
    call, params = CALLS[name]
    prompts = PROMPTS.Z if name in ("linear", "hessian", "diagonal") else GRAM
    for argument, *arguments in (
            ("params", params * np.nan, PROMPTS), ("params", params[..., 1:], PROMPTS),
            ("Z", params, PROMPTS._replace(Z=NAN)), ("prompts", params, prompts),
            ("target", params, PROMPTS._replace(target=np.zeros(3)))):
        with pytest.raises(ValueError, match=rf"^{argument}: got .*, wants"):
            call(*arguments)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("argument, call, values", (
    ("Z", lambda Z: linattn.compress(PROMPTS._replace(Z=Z)), (
        PROMPTS.Z[0], PROMPTS.Z[:, :, :1], PROMPTS.Z[:, :1], PROMPTS.Z[:0], "prompts")),
    ("target", lambda target: linattn.compress(PROMPTS._replace(target=target)), (
        1.0, np.full(7, np.inf))),
    ("Gram", lambda part: linattn.compress(GRAM._replace(**part)), (
        dict(q=np.zeros(3)), dict(G=GRAM.G[:3]), dict(target=1.0))),
    ("G", lambda G: linattn.compress(GRAM._replace(G=G)), (np.nan * GRAM.G,)),
    ("params", partial(linattn.loss_and_grad, prompts=PROMPTS), (
        PARAMS[0], PARAMS[:, :1], PARAMS[:, :, :2, :2], PARAMS[:0], [[1], [2, 3]], "params")),
    ("params", partial(mlp.mlp_loss_and_grad, prompts=PROMPTS), (
        MLP_PARAMS[:20], MLP_PARAMS[None])),
    *(("params", partial(function, prompts=PROMPTS), (PARAMS * 1j,)) for function in (
        linattn.hessian, linattn.hessian_diagonal)),
    ("params", lambda x: linattn.hessian_vector_product(x, PARAMS, PROMPTS), (PARAMS * 1j,)),
    ("params", lambda x: linattn.predict(x, PROMPTS.Z), (PARAMS * np.nan,)),
    *((name, lambda x, name=name: linattn.init_params(**dict(rng=RNG) | {name: x}), values)
      for name, values in dict(rng=(0,), layers=(0, True), d=(2.5,), full=("no",),
                               std=(-0.1, np.float32(-0.1), np.nan)).items()),
    ("hidden", lambda hidden: mlp.init_mlp_params(RNG, hidden=hidden), (0,)),
    ("layers", lambda layers: mlp.mlp_loss_and_grad(MLP_PARAMS, PROMPTS, layers=layers), (0,)),
    ("layers", lambda layers: mlp.mlp_hessian_diagonal(MLP_PARAMS, PROMPTS, layers=layers), (0,)),
    ("Z", lambda Z: linattn.predict(PARAMS, Z), (NAN,)),
    ("Z", lambda Z: linattn.predict(PARAMS, Z, "relu"), (NAN, GRAM)),
    ("activation", lambda name: linattn.predict(PARAMS, PROMPTS.Z, name), (["linear"],)),
    ("activation", lambda name: linattn.loss_and_grad(PARAMS, PROMPTS, name), ("tanh",)),
    ("activation", lambda name: linattn.textbook_loss_and_grad(PARAMS, PROMPTS, name), ("tanh",)),
    ("v", lambda v: linattn.hessian_vector_product(PARAMS, v, PROMPTS), (
        PARAMS[0], PARAMS * np.nan, PARAMS * 1j)),
    ("v", lambda v: linattn.curvature(PARAMS, v, PROMPTS), (0 * PARAMS, "upwards"))))
def test_bad_input_is_named(argument, call, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{argument}: got .*, wants"):
            call(value)


def test_cost():
    """With the context a textbook gradient gets dearer; one from the Gram form does not, as it
    reads the prompts only through G and q."""
    def seconds(gradient, prompts):
        params = linattn.init_params(np.random.default_rng(0))
        return min(timeit.repeat(lambda: gradient(params, prompts), number=1, repeat=7))

    short, long = (data.sample_prompts(np.random.default_rng(0), 100, n) for n in (10, 160))
    textbook = linattn.textbook_loss_and_grad
    assert seconds(textbook, long) > 8 * seconds(textbook, short)
    short, long = linattn.compress(short), linattn.compress(long)
    assert seconds(linattn.loss_and_grad, long) < 3 * seconds(linattn.loss_and_grad, short)
