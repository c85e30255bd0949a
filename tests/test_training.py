"""The loop, what is measured along a run, and what is read off losses.

SMALL is Setting 1 with 20 prompts a batch; SGD and ADAM are contestants in it.
"""

import functools
import itertools

import numpy as np
import pytest

import data
import linattn
import mlp
import optimizers
import runs
import training
from data import SETTING_1

SMALL = SETTING_1._replace(batch=20)
SGD, ADAM = (optimizers.SGD, dict(lr=0.02)), (optimizers.Adam, dict(lr=0.02))
NAN, INF = np.nan, np.inf
equal, close = np.testing.assert_array_equal, np.testing.assert_allclose
train, along = training.train.__wrapped__, training.along.__wrapped__  # computed at every call
noise = training.noise.__wrapped__


@pytest.fixture(autouse=True)
def kept_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "folder", tmp_path)


def model(setting):
    """Initial params and gradient, without Gram matrices."""
    sizes = dict(layers=setting.layers, d=setting.data["d"], std=setting.std)
    if setting.activation == "mlp":
        return (functools.partial(mlp.init_mlp_params, **sizes),
                functools.partial(mlp.mlp_loss_and_grad, layers=setting.layers))
    return (functools.partial(linattn.init_params, full=setting.full, **sizes),
            functools.partial(linattn.textbook_loss_and_grad, activation=setting.activation))


# ---- The loop ------------------------------------------------------------------------------------


def by_hand(setting, optimizer, seed, factors):
    """`train` with one contestant, each move multiplied by its factor."""
    init, gradient = model(setting)
    weights, batches = (np.random.Generator(np.random.SFC64(child))
                        for child in np.random.SeedSequence(seed).spawn(2))
    theta, m, v, losses, norms, layers, path = init(weights), 0, 0, [], [], [], []
    for t, factor in enumerate(factors):
        if t == 0 or not setting.fixed:
            prompts = data.sample_prompts(batches, setting.batch, **setting.data)
        loss, g = gradient(theta, prompts)
        losses.append(loss)
        norms.append(np.sqrt((g**2).sum()))
        layers.append([norms[-1]] if g.ndim == 1 else [np.sqrt((each**2).sum()) for each in g])
        g = g * min(1, setting.clip / norms[-1])
        if optimizer == "SGD":
            m = 0.9 * m + g
            step = -0.02 * m
        else:
            m, v = 0.9 * m + 0.1 * g, 0.9 * v + 0.1 * g**2
            step = -0.02 * m / (1 - 0.9 ** (t + 1)) / (np.sqrt(v / (1 - 0.9 ** (t + 1))) + 1e-8)
        path.append((theta, theta + factor * step))
        theta = path[-1][1]
    return dict(loss=losses, grad_norm=norms, layer_grad_norm=layers, snapshots=path)


PAPER = data.Setting("as printed", dict(n=20, d=5), dict(SGD=0.02, Adam=0.02), clip=1.0, layers=3,
                     activation="linear", full=False, std=0.05, batch=1000, fixed=False,
                     schedule="constant")


@pytest.mark.parametrize("changes, factors", (
    ({}, None),  # every gradient is clipped
    (dict(batch=20, clip=9.0), None),  # some are
    (dict(clip=np.inf), None),
    (dict(batch=20, fixed=True, full=True, std=0.2, layers=2), None),
    (dict(data=dict(n=7, d=2, covariates="gamma")), None),
    (dict(batch=20, activation="softmax", std=0.3, layers=2), None),
    (dict(batch=20, activation="mlp", std=0.3, layers=1), None),
    (dict(batch=20, schedule="linear"), (1, 3 / 4, 1 / 2, 1 / 4)),
    (dict(batch=20, schedule="warm-up"), (0, 1, 1, 1))))
def test_the_protocol_by_hand(changes, factors):
    """Fresh batch, textbook gradient, clip, step. Loss and norm are taken before the step, the norm
    before clipping; snapshots before and after steps 0 and 3, of 0, 1, 2, 3."""
    found = train(SETTING_1._replace(**changes), training.contestants(SETTING_1), 7, 4, every=3)
    for i, optimizer in enumerate(("SGD", "Adam")):
        wanted = by_hand(PAPER._replace(**changes), optimizer, 7, factors or (1, 1, 1, 1))
        for name in ("loss", "grad_norm", "layer_grad_norm"):
            close(found[name][i], wanted[name], rtol=1e-6)
        close(found["snapshots"][i], wanted["snapshots"][::3], 1e-6, 1e-9)


def test_a_misspelt_schedule_does_not_mean_another():
    with pytest.raises(ValueError, match="^schedule: got 'linaer', wants "):
        train(SMALL._replace(schedule="linaer"), (SGD,), 0, 1)


def test_runs_share_batches_and_do_not_depend_on_their_company():
    """Otherwise a comparison of optimizers would compare their luck, too."""
    both = train(SMALL, (SGD, ADAM), 0, 4)
    for i, contestant in enumerate((SGD, ADAM)):
        for name, values in train(SMALL, (contestant,), 0, 4).items():
            assert np.array_equal(values[0], both[name][i])  # to the last bit
    assert both["loss"][0, 0] == both["loss"][1, 0]  # the same initial weights
    assert (train(SMALL, (SGD,), 1, 4)["loss"] != both["loss"][0]).all()  # of another seed others


@pytest.fixture
def scripted(monkeypatch):
    """A function that trains by made-up losses and gradients: the next (loss, entry of the
    gradient) at every step, whatever the params are."""
    def by(script, **options):
        numbers = itertools.count()
        monkeypatch.setattr(training, "fresh_batch", lambda rng, setting: script[next(numbers)])
        monkeypatch.setattr(training, "gradient_of", lambda setting: lambda params, row: (
            row[0], np.full(params.shape, row[1])))
        return train(SMALL, (SGD,), 0, len(script), **options)

    return by


def test_a_step_that_overflows_is_left_out(scripted):
    """A rare prompt must not end a run: its loss counts as infinite, the optimizer sees it not."""
    rare = scripted([(3.0, 1.0), (INF, 1.0), (2.0, 1e200), (2.0, NAN), (NAN, 1.0), (1.0, -1.0)],
                    every=1)
    plain = scripted([(3.0, 1.0), (1.0, -1.0)], every=1)
    assert rare["loss"].tolist() == [[3.0, INF, INF, INF, INF, 1.0]]
    assert np.array_equal(np.isinf(rare["grad_norm"]), np.isinf(rare["loss"]))
    assert all(np.array_equal(*rare["snapshots"][0, t]) for t in range(1, 5))
    assert np.array_equal(rare["snapshots"][0, -1], plain["snapshots"][0, -1])


@pytest.mark.parametrize("losses, end", (
    ([2.0] + 40 * [2001.0], 21),  # 20 losses above 1,000 times the first one
    ([2.0] + 40 * [INF], 21),
    ([2.0] + 40 * [2000.0], None),  # not above
    ([2.0] + 19 * [2001.0] + [1999.0] + 19 * [2001.0], None),
    ([2.0] + 19 * [2001.0] + [1999.0] + 30 * [2001.0], 41),
    (30 * [2001.0], None), (30 * [INF], 20)))
def test_divergence_is_read_off_the_loss(scripted, losses, end):
    """Too eager a rule would end runs that recover from a rare prompt; too slow a one keeps
    numbers of a run that is lost: all is NaN from there on."""
    found = scripted([(loss, 1.0) for loss in losses], every=1)
    for values in found.values():
        assert not np.isnan(values[0, :end]).any()
        assert end is None or np.isnan(values[0, end:]).all()


def test_a_run_that_diverges_disturbs_no_other(recwarn):
    wild, usual = train(SMALL, ((optimizers.SGD, dict(lr=1e9)), ADAM), 0, 60)["loss"]
    assert np.isnan(wild[-1]) and np.array_equal(usual, train(SMALL, (ADAM,), 0, 60)["loss"][0])
    assert not recwarn.list


# ---- Optimizers of a reader's --------------------------------------------------------------------


class Spoils:
    """Gradient descent in place, that leaves nothing of the arrays that it was given before."""

    def __init__(self, lr):
        self.lr, self.params = lr, np.zeros(())

    def step(self, params, grad):
        self.params *= NAN
        self.params = params
        params -= self.lr * grad
        grad *= NAN
        return params


@pytest.mark.parametrize("setting", (SMALL, SMALL._replace(clip=np.inf, std=0.01)))
def test_an_optimizer_may_keep_and_alter_the_arrays(setting):
    """All is as with an optimizer that alters nothing, also for those who come after it."""
    plain = optimizers.SGD, dict(lr=0.02, momentum=0.0)
    for values in train(setting, (plain, (Spoils, dict(lr=0.02)), plain), 0, 5, every=1).values():
        assert np.isfinite(values).all()
        close(values[1:], np.stack(2 * [values[0]]), rtol=1e-12)


class Odd:
    """Returns what a function makes of the params, from its step number `at` on."""

    def __init__(self, lr, change, at=0):
        self.steps, self.change, self.at = itertools.count(), change, at

    def step(self, params, grad):
        return self.change(params) if next(self.steps) >= self.at else params


def one_nan(params):
    params[-1, -1, -1, -1] = NAN
    return params


@pytest.mark.parametrize("at", (0, 2, 4))
def test_an_optimizer_that_returns_nan_is_noticed(at):
    """At its last step, too: otherwise a run whose weights are lost would be ranked."""
    found = train(SMALL, ((Odd, dict(lr=1, change=one_nan, at=at)), SGD), 0, 5)
    for name in ("loss", "grad_norm"):
        assert np.isfinite(found[name][0, :at]).all() and np.isnan(found[name][0, at:]).all()
        assert np.isfinite(found[name][1]).all()


@pytest.mark.parametrize("change, words", (
    (lambda params: None, "^step returned None, wants the new params"),
    (lambda params: (params, 1), "^step returned tuple, wants one array"),
    (lambda params: "new", "^step returned str, wants one array"),
    (np.sum, r"^step returned shape \(\), wants \(3, 2, 5, 5\)"),
    (np.ravel, r"^step returned shape \(150,\), wants \(3, 2, 5, 5\)")))
def test_an_optimizer_that_returns_no_params(change, words):
    with pytest.raises(ValueError, match=words):
        train(SMALL, (SGD, (Odd, dict(lr=1, change=change))), 7, 3)


def test_contestants():
    """At the setting's rates or one's own; a missing one is named."""
    assert training.contestants(SETTING_1) == (SGD, ADAM)
    found = training.contestants(SETTING_1, lr=dict(Adam=0.5))
    assert found == ((optimizers.SGD, dict(lr=0.02)), (optimizers.Adam, dict(lr=0.5)))
    assert training.rates_of(found) == "SGD 0.02, Adam 0.5"
    with pytest.raises(ValueError, match="^lr: got none for Muon in Setting 1, wants one"):
        training.contestants(SETTING_1, (optimizers.SGD, optimizers.Muon))
    with pytest.raises(ValueError, match="^lr: got 0.01, wants a dict"):
        training.contestants(SETTING_1, lr=0.01)
    with pytest.raises(ValueError, match="^optimizers: got 'SGD', wants classes"):
        training.contestants(SETTING_1, ["SGD"])


# ---- Measured at one point -----------------------------------------------------------------------


@functools.cache
def point(activation="linear"):
    """A small setting and its batch, params, a step, and the gradient and Hessian there: H by
    differences."""
    data_of = dict(n=3, d=1, hidden=2) if activation == "mlp" else dict(n=4, d=2)
    setting = SETTING_1._replace(data=data_of, layers=3 if activation == "mlp" else 2, std=0.5,
                                 activation=activation)
    init, gradient = model(setting)
    rng = np.random.default_rng(0)
    theta = init(rng, hidden=2) if activation == "mlp" else init(rng)
    prompts = data.sample_prompts(np.random.Generator(np.random.SFC64([2310, 0])), **data_of)
    units = 1e-5 * np.eye(theta.size).reshape(-1, *theta.shape)
    H = np.array([(gradient(theta + unit, prompts)[1] - gradient(theta - unit, prompts)[1]).ravel()
                  for unit in units]) / 2e-5
    loss, grad = gradient(theta, prompts)
    step = 1e-3 * rng.standard_normal(theta.shape)
    return setting, training.evaluation_batch(setting, 0), theta, step, loss, grad, (H + H.T) / 2


@pytest.mark.parametrize("activation, rel", (("linear", 1e-6), ("softmax", 1e-6), ("mlp", 0.02)))
def test_smoothness(activation, rel):
    """v^T H v, for every model; with an MLP the params are flat."""
    setting, prompts, theta, step, _, _, H = point(activation)
    v = step.ravel() / np.linalg.norm(step)
    found = training.smoothness(setting, theta, theta + step, prompts)
    assert found == pytest.approx(v @ H @ v, rel=rel)
    assert np.isnan(training.smoothness(setting, theta, theta, prompts))  # no step, no direction


@pytest.mark.parametrize("activation, rel", (("linear", 1e-6), ("mlp", 0.02)))
def test_condition(activation, rel):
    """max |H_ii| / median |H_ii|."""
    setting, prompts, theta, _, _, _, H = point(activation)
    h = np.sort(abs(np.diag(H)))
    wanted = h[-1] / (h[len(h) // 2] + h[(len(h) - 1) // 2]) * 2
    assert training.condition(setting, theta, None, prompts) == pytest.approx(wanted, rel=rel)
    equal(training.r_med(np.array([[-8, 1, 2.0], [0, -3, 6]])), [4, 2])  # zeros count


def test_loss_gradient_and_hessian():
    setting, prompts, theta, step, loss, grad, H = point()
    for measure, wanted in (
            (training.loss_at, loss), (training.gradient_norm, np.sqrt((grad**2).sum())),
            (training.diagonal, np.diag(H)), (training.spectral_norm, np.linalg.norm(H, 2))):
        close(measure(setting, theta, theta + step, prompts), wanted, 1e-5, 1e-6)


def test_the_spectral_norm_counts_negative_eigenvalues(monkeypatch):
    monkeypatch.setattr(linattn, "hessian", lambda params, prompts: np.diag([-3.0, 1.0, 2.0]))
    assert training.spectral_norm(SETTING_1, None, None, None) == 3


@pytest.mark.parametrize("measure", (training.spectral_norm, training.diagonal))
def test_a_hessian_of_linear_attention_is_not_taken_for_another(measure):
    """Of softmax attention at the same weights it is another by a factor of thirty."""
    with pytest.raises(ValueError, match="^activation: got 'softmax', wants linear"):
        measure(SETTING_1._replace(activation="softmax"), None, None, None)


def test_clipped_smoothness():
    """Four directions from the gradient, then four from the step: as it is, limited to two
    quantiles of the coordinates that are not 0, and the sign."""
    setting, prompts, theta, _, _, grad, H = point()
    step = np.zeros(theta.size)
    step[[3, 5, 11, 14]] = -4, 1, 3, 2  # quantiles of their absolute values: 3.7 and 2.5
    g = grad.ravel()
    size = np.sort(abs(g[g != 0]))  # 12, as the last P has no gradient: ranks 9.9 and 5.5
    assert len(size) == 12
    high, middle = 0.1 * size[9] + 0.9 * size[10], (size[5] + size[6]) / 2
    wanted = [[v @ H @ v / (v @ v) for v in (
        values, np.clip(values, -a, a), np.clip(values, -b, b), np.sign(values))]
        for values, a, b in ((g, high, middle), (step, 3.7, 2.5))]
    found = training.clipped_smoothness(setting, theta, theta + step.reshape(theta.shape), prompts)
    close(found, wanted, rtol=1e-4)
    assert len(training.CLIPPED) == 4
    assert np.isnan(training.clipped_smoothness(setting, theta, theta, prompts)[1]).all()


# ---- Measured along runs -------------------------------------------------------------------------


def test_along():
    """Of the runs of `train`, in the order contestants, points, batches; batch k is the same in
    every run, and of 1,000 prompts."""
    both = training.contestants(SMALL)
    path = train(SMALL, both, 5, 9, 4)["snapshots"]

    def seen(_, before, after, prompts):
        return before[0, 0, 0, 0], after[0, 0, 0, 0], prompts.target[0], len(prompts.target)

    found = along(seen, SMALL, both, 5, 9, (2, 0), batches=3, every=4)["values"]
    assert found.shape == (2, 2, 3, 4)
    for i, p, k in np.ndindex(2, 2, 3):
        before, after = path[i, (2, 0)[p], :, 0, 0, 0, 0]
        batch = data.sample_prompts(np.random.Generator(np.random.SFC64([2310, k])), 1000,
                                    **SMALL.data)
        assert found[i, p, k].tolist() == [before, after, batch.target[0], 1000]


def test_along_is_nan_where_a_run_had_diverged(monkeypatch, recwarn):
    """If only after the step, too; and there alone."""
    theta = np.ones((1, 2, 2, 2))
    lost = np.where(np.arange(8).reshape(theta.shape) == 7, INF, theta)
    first = [(theta, theta), (theta, lost), (NAN * theta, NAN * theta)]
    monkeypatch.setattr(training, "train", lambda *task: dict(
        snapshots=np.array([first, [(theta, theta)] * 3])))
    found = along(lambda _, before, after, __: (1 + before - after).ravel(), SMALL, (SGD, ADAM), 0,
                  101, (0, 1, 2))["values"]
    assert (found[0, 0] == 1).all() and np.isnan(found[0, 1:]).all() and (found[1] == 1).all()
    assert not recwarn.list


def test_noise():
    """The gradient less the mean gradient of a hundred batches, at the seed's initial weights."""
    found = noise(SMALL, 3, 5)
    weights, batches = training.streams(3)
    params = linattn.init_params(weights)
    grads = [linattn.textbook_loss_and_grad(params, data.sample_prompts(batches, 20, 20, 5))[1]
             for _ in range(105)]
    wanted = [np.sqrt(((grad - np.mean(grads[:100], axis=0)) ** 2).sum()) for grad in grads[100:]]
    close(found["norms"], wanted, rtol=1e-9)
    assert np.shape(found["null"]) == (20, 5)


def noise_of(noises, monkeypatch, seed=0):
    """`noise`, of made-up noise (draws, entries)."""
    grads = itertools.chain(np.zeros((100, len(noises[0]))), noises)
    monkeypatch.setattr(training, "gradient_of", lambda setting: lambda *_: (0.0, next(grads)))
    return noise(SMALL, seed, len(noises))


def test_the_null_is_gaussian_with_the_noises_mean_and_covariance(monkeypatch):
    """Entries that depend on each other, heavy-tailed in one; and a mean, also where nothing
    varies. Of a Gaussian vector with mean m and covariance S, |z|^2 has the mean |m|^2 + tr S and
    the variance 2 tr S^2 + 4 m^T S m."""
    rng = np.random.default_rng(0)
    noises = rng.standard_normal((2000, 3)) @ [[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.5]]
    noises[:, 0] *= rng.choice([0.1, 3.0], 2000, p=[0.9, 0.1])
    noises = np.hstack([noises + [1.0, -2.0, 0.0], np.full((2000, 1), 1.5)])
    found = noise_of(noises, monkeypatch)
    close(found["norms"], np.linalg.norm(noises, axis=1))
    m, S, squares = noises.mean(axis=0), np.cov(noises.T), np.array(found["null"]) ** 2
    assert squares.shape == (20, 2000) and len(np.unique(squares)) == 40_000
    variance = 2 * np.trace(S @ S) + 4 * m @ S @ m
    assert squares.mean() == pytest.approx(m @ m + np.trace(S), rel=0.02)
    assert squares.var() == pytest.approx(variance, rel=0.05)
    assert np.var(found["norms"] ** 2) > 1.5 * variance  # as the noise is not Gaussian
    other = noise_of(noises, monkeypatch, seed=1)["null"]
    assert not np.isin(other, found["null"]).any()


@pytest.mark.parametrize("mean, normal", ((0.0, np.ones), (10.0, np.zeros)))
def test_the_null_of_few_draws(mean, normal, monkeypatch):
    """Exactly, by normal numbers that are all 1 or all 0: |z|^2 is the trace of the covariance,
    with draws - 1 below it, or the square of the mean, of which four draws span little."""
    class Normal:
        standard_normal = staticmethod(normal)

    true = training.generator
    monkeypatch.setattr(training, "generator", lambda seed: (
        Normal if isinstance(seed, list) else true(seed)))
    noises = np.array([[3.0, 1, 0, 0, 0, 0], [-3, 1, 0, 0, 0, 0], [0, -1, 1, 0, 0, 0],
                       [0, -1, -1, 0, 0, 0]])  # squares: 18, 4, 2
    squares = np.array(noise_of(noises + mean, monkeypatch)["null"]) ** 2
    close(squares, 600 if mean else 24 / 3)


def test_noise_norms(monkeypatch):
    """Of these seeds, in order."""
    monkeypatch.setattr(training, "parallel", lambda function, tasks: [
        dict(norms=np.full(draws, seed), null=np.full((20, draws), -seed))
        for _, seed, draws in tasks])
    norms, null = training.noise_norms(SMALL, (5, 1000, 7), 4)
    assert norms.tolist() == [4 * [5], 4 * [1000], 4 * [7]]
    assert null.shape == (3, 20, 4) and null[2, 19, 3] == -7


# ---- Read off losses, paths and noise ------------------------------------------------------------


def test_final_loss():
    """The median over the last tenth of the steps, at least one: in Setting 3 a mean is decided by
    one rare prompt. Infinite if the run diverged."""
    loss = np.full((4, 30), 100.0)
    loss[:, -3:] = (1, 2, 9), (1, 2, NAN), (0, 0, 9), (1, INF, INF)
    equal(training.final_loss(loss), [2, INF, 0, INF])
    assert training.final_loss(np.array([5.0, 4, 3])) == 3


def test_ratio(recwarn):
    """A run that diverged counts against its optimizer; of two nothing is known."""
    found = training.ratio(np.array([6, INF, 2, INF, 1]), np.array([2, 2, INF, INF, 0]))
    equal(found, [3, INF, 0, NAN, INF])
    assert not recwarn.list


def test_steps_to():
    """The median of the last 50 losses, of all in the beginning, first below the target: one low
    loss is not enough. Infinitely many if never, also of a run that diverged."""
    loss = np.full((4, 120), 9.0)
    loss[0, 10] = 0
    loss[1, 60:] = 0  # the 25th of the last 50 at index 84 makes their median 4.5, the 26th 0
    loss[2] = 0
    loss[3, 30:] = NAN
    equal(training.steps_to(4, loss), [INF, 86, 1, INF])
    equal(training.steps_to(5, loss), [INF, 85, 1, INF])
    early = np.array([9.0, 3.0, 1.0, 1.0])
    assert training.last_fifty(early).tolist() == [9, 6, 3, 2]
    assert [training.steps_to(target, early) for target in (7, 4, 2.5, 2)] == [2, 3, 4, INF]


def test_running_median():
    """Over fifty blocks, or as many as there are steps; and their centres."""
    loss = np.arange(200.0).reshape(2, 100)
    assert training.running_median(loss)[:, :2].tolist() == [[0.5, 2.5], [100.5, 102.5]]
    assert training.running_median(loss).shape == (2, 50)
    assert training.block_centres(100)[:3].tolist() == [0.5, 2.5, 4.5]
    spike = np.array([1.0] * 149 + [1e9])
    assert training.running_median(spike).tolist() == 50 * [1]  # a median, not a mean
    assert training.running_median(loss[:, :3]).tolist() == loss[:, :3].tolist()
    assert training.block_centres(3).tolist() == [0, 1, 2]


def test_points_of_a_path():
    """Numbers of snapshots, with both ends; then a median over what comes after the start."""
    assert training.points_of(10_000, 3) == (0, 99, 199)
    assert training.points_of(51, 50) == (0, 1) and training.points_of(50, 50) == (0,)
    assert training.points_of(100, 3, every=10) == (0, 4, 9)
    path = np.array([[100.0] + 9 * [1.0], 9 * [2.0] + [NAN], 5 * [1.0] + 5 * [9.0],
                     [1.0, NAN] + 7 * [NAN] + [3.0], 10 * [NAN]])
    equal(training.without_start(path), [1, NAN, 9, 3, NAN])
    assert training.without_start(np.arange(4.0), start=0.5) == 2.5


def test_log_slope():
    """Where both are positive; unknown from a single x."""
    x, y = np.array([1.0, 2, 4, 8, 3, -1]), np.array([5, 5 * 2**1.5, 40, 5 * 8**1.5, -1, 7])
    assert training.log_slope(x, y) == pytest.approx(1.5)
    assert np.isnan(training.log_slope(np.ones(3), np.arange(1.0, 4)))


def test_tail_and_spread():
    """The values that a share of the draws reach, over the median; q99 / q50."""
    draws = np.arange(1.0, 1002.0)[::-1][None]  # median 501
    shares, tail = training.tail_shares(1001), training.tail(draws)[0]
    assert shares[0] == 1 / 1001 and shares[-1] == 1 and 100 < len(shares) <= 200
    assert np.median(shares) < 0.2  # as many in each decade, where there are as many ranks
    assert tail[0] == 1001 / 501 and tail[-1] == 1 / 501
    for share, reached in zip(shares, tail, strict=True):
        assert (draws / 501 >= reached).mean() == pytest.approx(share)
    assert training.spread(np.vstack([draws, 1 + 0 * draws])).tolist() == [991 / 501, 1]


@pytest.mark.parametrize("values, skewness", (
    ([-1, 1, 1, -1], 0), ([0, 0, 0, 5], 2 / 3**0.5), ([1, 2, 3, 7], 0.833)))
@pytest.mark.parametrize("scale", (1.0, 1e103, 1e-110))
def test_skewness(values, skewness, scale):
    """Of a fair coin, of one in four, and of numbers whose third power overflows."""
    both = scale * np.array([values, values[::-1]], float)
    assert training.skewness(both) == pytest.approx([skewness, skewness], abs=6e-4)


# ---- Each optimizer at its best rate -------------------------------------------------------------


def test_the_grid():
    """1, 2, 5 times powers of ten, between limits of SGD and of all others; larger where the
    gradient is clipped at less than 1."""
    found = training.grid({"usual": SETTING_1, "small": data.SPHERICAL}, ("SGD", "Lion"))
    for pair, rates in {("usual", "SGD"): [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
                        ("usual", "Lion"): [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1],
                        ("small", "SGD"): [0.5, 1, 2, 5, 10, 20, 50],
                        ("small", "Lion"): [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]}.items():
        close(found[pair], rates)


SETTINGS = {"a": SETTING_1, "b": SETTING_1._replace(layers=2)}
CANDIDATES = {"one": (optimizers.SGD, dict(momentum=0.5)), "two": (optimizers.Adam, {})}


@pytest.fixture
def asked(monkeypatch):
    """The tasks, of which none is trained: a loss tells the rate, best at 0.1 on the seeds below
    1000 and at 0.2 on others, and the run who it is. The rate 0.5 diverges."""
    def told(function, tasks):
        for setting, contestants, seed, steps in tasks:
            done.append((setting, contestants, seed, steps))
            lr = np.array([arguments["lr"] for _, arguments in contestants])
            loss = 1 + abs(np.log10(lr / (0.1 if seed < 1000 else 0.2)))
            yield dict(loss=np.repeat(np.where(lr == 0.5, NAN, loss)[:, None], steps, 1), who=[
                f"{setting.layers} {each.__name__} {arguments.get('momentum')} {arguments['lr']} "
                f"{seed}" for each, arguments in contestants])

    done = []
    monkeypatch.setattr(training, "parallel", told)
    return done


def test_sweep(asked):
    """Every candidate's run at every rate in every setting, seeds first, none mixed up."""
    rates = {("a", "one"): [0.1, 0.01], ("a", "two"): [0.001],
             ("b", "one"): [5], ("b", "two"): [2, 1]}
    found = training.sweep(SETTINGS, CANDIDATES, rates, range(2, 5), 4)
    assert {pair: list(by_rate) for pair, by_rate in found.items()} == rates
    for (name, each), by_rate in found.items():
        for rate, run in by_rate.items():
            who = f"{SETTINGS[name].layers} {'SGD 0.5' if each == 'one' else 'Adam None'} {rate}"
            assert run["who"].tolist() == [f"{who} {seed}" for seed in (2, 3, 4)]
            assert run["loss"].shape == (3, 4)
    assert [(seed, steps) for _, _, seed, steps in asked] == 2 * [(2, 4), (3, 4), (4, 4)]


def runs_with(*finals):
    """{rate: run} of one step at the rates 1, 2, 3, ..., from the losses of the seeds."""
    return {rate: dict(loss=np.array(final, float)[:, None])
            for rate, final in enumerate(finals, 1)}


@pytest.mark.parametrize("finals, best", (
    (([3, 3], [1, 8], [0.1, NAN]), 2), (([3, 3], [1, 10], [0.1, INF]), 1),  # of logarithms
    (([3, 3], [0, 4]), 2), (([0, 4], [3, 3]), 1),  # a loss of exactly 0 ranks first
    (([1, NAN], [9, 9]), 2), (([NAN, 1], [NAN, 1]), 1),
    (([0, NAN], [9, 9]), 2)))
def test_the_best_rate(finals, best, recwarn):
    """That of the lowest mean log loss at which no seed diverged."""
    assert training.best_rate(runs_with(*finals)) == best
    assert not recwarn.list


@pytest.mark.parametrize("finals, about", (
    (([3, 3], [2, 2], [1.5, 1.6], [NAN, 1]),
     "3, in use 0.5; within a factor 2 of the best: 1 to 3; 1 of 8 runs diverged"),
    (([1, 1], [1.9, 1.9], [2.1, 2.1]),
     "1 (an end of the grid), in use 0.5; within a factor 2 of the best: 1 to 2; "
     "0 of 6 runs diverged"),
    (([5, 5], [1, 1]),
     "2 (an end of the grid), in use 0.5; within a factor 2 of the best: 2 to 2; "
     "0 of 4 runs diverged"),
    (([NAN, 1], [NAN, INF]), "none, 3 of 4 runs diverged")))
def test_rates_in_words(finals, about):
    assert training.about_rates(runs_with(*finals), 0.5) == about


# ---- The door of an experiment -------------------------------------------------------------------


@training.experiment(first=1000)
def example(seeds=6, steps=100, late=0, optimizers=(optimizers.SGD, optimizers.Adam), lr=None,
            sizes=(256,), remedies=("none",), settings=data.PAPER_SETTINGS):
    return dict(locals())


@training.experiment()
def alone(seeds=6, optimizers=(optimizers.Adam,)):
    return dict(locals())


example.full = dict(remedies=("none", "decay"))
MINE = {"mine": SETTING_1._replace(data=dict(n=9, d=2, covariance=np.eye(2)))}
BOTH = optimizers.SGD, optimizers.Adam
NAMESAKE = type("Adam", (optimizers.Adam,), {})


@pytest.mark.parametrize("argument, values, wanted", (
    ("seeds", (3, np.int64(3), 3.0, [1000, 1001, 1002], range(1000, 1003), np.arange(1000, 1003)),
     (1000, 1001, 1002)),
    ("seeds", ([1, 2], (1, 2), [1.0, 2], range(1, 3)), (1, 2)),
    ("steps", (1e3, 1000, np.int32(1000), np.float64(1000)), 1000), ("late", (0, 0.0), 0),
    ("optimizers", (BOTH, list(BOTH), iter(BOTH)), BOTH), ("lr", (None,), None),
    ("lr", (dict(SGD=0.5), dict(SGD=np.float32(0.5))), dict(SGD=0.5)),
    ("sizes", ((16, 64), [16, 64.0], range(16, 65, 48)), (16, 64)),
    ("remedies", ("decay", ["decay"]), ("decay",)), ("settings", (MINE,), MINE)))
def test_the_door_takes_what_has_a_plain_meaning(argument, values, wanted):
    for value in values:
        found = example(**{argument: value})
        assert found[argument] == wanted and type(found[argument]) is type(wanted)
    assert alone(optimizers=optimizers.SGD)["optimizers"] == (optimizers.SGD,)
    assert alone(2)["seeds"] == (0, 1)
    with pytest.raises(ValueError, match="^optimizers: got .*, wants one"):
        alone(optimizers=BOTH)


@pytest.mark.parametrize("argument, values", (
    ("seeds", (0, -1, None, [1, 1], [], "3", 1.5, True, [-1], ["1"])),
    ("steps", (0, -1, 2.5, "100", True, None, [100], np.nan, np.inf)), ("late", (-1,)),
    ("optimizers", ("SGD", ["SGD"], optimizers.SGD(0.1), optimizers.SGD, BOTH[:1], (), None,
                    (optimizers.Adam, NAMESAKE), (optimizers.SGD, int))),
    ("lr", (0.01, dict(sgd=0.5), {optimizers.SGD: 0.5}, dict(Adm=0.01), dict(SGD=-1), dict(SGD=0),
            dict(SGD="x"), dict(SGD=None), dict(SGD=True), dict(SGD=np.nan), [("SGD", 0.5)])),
    ("lr", (dict(Muon=0.1),)), ("sizes", ((0,), (2.5,), "16", 16)),
    ("remedies", (("none", "decai"), "decai", (1,), 5, [["none"]])),
    ("settings", (SETTING_1, {}, {"a": 1}, {1: SETTING_1}, [SETTING_1], None,
                  {"a": SETTING_1, "b": "Setting 1"}))))
def test_the_door_names_what_it_refuses(argument, values):
    """In one line, before anything is computed."""
    for value in values:
        with pytest.raises(ValueError, match=rf"^{argument}: got .*, wants .*$"):
            example(**{argument: value})


@pytest.mark.parametrize("changes, name", (
    (dict(n=None), "n"), (dict(covariates="Gamma"), "covariates"), (dict(nois=1.0), "data"),
    ({}, "data")))
def test_the_data_of_a_setting_are_looked_at_before_anything_is_computed(changes, name):
    setting = SETTING_1._replace(data=SETTING_1.data | changes if changes else dict(d=5))
    with pytest.raises(ValueError, match=f"^{name}: got .*, wants "):
        example(settings={"mine": setting})


@pytest.mark.parametrize("argument, arguments", (
    ("contestants", ((), 0, 5)), ("contestants", ("SGD", 0, 5)), ("contestants", (BOTH, 0, 5)),
    *(("seed", ((SGD,), seed, 5)) for seed in (None, -1, 1.5, True)),
    *(("steps", ((SGD,), 0, steps)) for steps in (0, -1, "5", 2.5)),
    *(("every", ((SGD,), 0, 5, every)) for every in (0, -1, 2.5))))
def test_a_run_is_refused_before_it_is_kept(argument, arguments, tmp_path):
    with pytest.raises(ValueError, match=f"^{argument}: got .*, wants "):
        training.train(SETTING_1, *arguments)
    assert not list(tmp_path.glob("*.npz"))

# ---- The protocol of best rates ------------------------------------------------------------------


@pytest.fixture
def valley(monkeypatch):
    """A world without training: `pilot` returns losses that `by` makes of rate, length and seed.
    Returns what was asked: (contestants, seed, lengths)."""
    def world(by):
        def told(function, tasks):
            for setting, contestants, seed, lengths, end in tasks:
                asked.append((contestants, seed, lengths))
                yield dict(ends=[[by(optimizer.__name__, arguments["lr"], length, seed)
                                  for length in lengths] for optimizer, arguments in contestants])

        monkeypatch.setattr(training, "parallel", lambda *call: list(told(*call)))
        return asked

    asked = []
    return world


TWO = {"SGD": (optimizers.SGD, {}), "Adam": (optimizers.Adam, dict(beta2=0.999))}


def bowl(best, width=1.0):
    """Losses that fall from 4.9, nearly that of predicting 0, to 0.01 at this rate; 9, above that,
    from ten times it on."""
    return lambda name, rate, length, seed: 9.0 if rate >= 10 * best else min(
        4.9 - 1e-3 * rate / best, 0.01 * np.exp((np.log(rate / best) / width) ** 2))


@pytest.mark.parametrize("best", (1e-4, 0.002, 0.02, 0.7, 5))
def test_the_grid_grows_until_the_best_rate_is_inside(best, valley):
    """And then looks between its points; the rate taken has neighbours on both sides."""
    asked = valley(bowl(best))
    chosen, scores = training.best_rates(SETTING_1, TWO, [100])
    for name, (optimizer, arguments) in zip(TWO, chosen[100]):
        assert arguments["lr"] == pytest.approx(best)
        assert training.taken_in_words(scores[100][name]) == f"{best:g}"
    assert chosen[100][1] == (optimizers.Adam, dict(beta2=0.999, lr=chosen[100][0][1]["lr"]))
    rates = sorted({arguments["lr"] for contestants, _, _ in asked for _, arguments in contestants})
    i = rates.index(chosen[100][0][1]["lr"])
    assert rates[i + 1] / rates[i - 1] < 3.1  # 1, 1.5, 2, 3, 5, 7
    assert {seed for _, seed, _ in asked} == {0, 1, 2, 3}
    sgd = [arguments["lr"] for contestants, seed, _ in asked if seed == 0
           for optimizer, arguments in contestants if optimizer is optimizers.SGD]
    assert len(sgd) == len(set(sgd))  # no rate twice


@pytest.mark.parametrize("ends, best", (
    ({0.01: 2, 0.03: 0.9, 0.07: 0.5, 0.1: 0.4, 0.15: 0.5, 0.2: 0.3, 0.3: 0.9}, 0.2),
    ({0.01: 0.9, 0.015: 0.3, 0.02: 0.5, 0.03: 0.4, 0.05: 0.5, 0.1: 0.9}, 0.015)))
def test_a_rate_behind_one_that_had_bad_luck_is_found(ends, best, valley):
    """The neighbour of the best coarse rate is worse, the one behind it is better."""
    valley(lambda name, rate, length, seed: ends.get(rate, 2.0))
    chosen, _ = training.best_rates(SETTING_1, {"SGD": TWO["SGD"]}, [100])
    assert chosen[100][0][1]["lr"] == best


def test_of_nearly_equal_rates_the_lowest_is_taken(valley):
    """Within 5 %: the cliff is above."""
    valley(lambda name, rate, length, seed: {0.02: 1.04, 0.03: 1.03, 0.05: 1.0}.get(rate, 2.0))
    chosen, _ = training.best_rates(SETTING_1, TWO, [100])
    assert chosen[100][0][1]["lr"] == 0.02
    assert training.taken({1: 1.0, 2: 1.0 - np.log(1.06)}) == 2


def test_a_rate_at_which_one_pilot_is_lost_is_not_taken(valley):
    """Diverged, or above the loss of predicting 0, which is 5 here."""
    def loss(name, rate, length, seed):
        if seed == 3 and rate >= 0.03:
            return {"SGD": np.inf, "Adam": 6.0}[name]
        return 0.01 / rate

    valley(loss)
    chosen, _ = training.best_rates(SETTING_1, TWO, [100])
    assert [arguments["lr"] for _, arguments in chosen[100]] == [0.02, 0.02]


def test_each_length_has_its_own_best_rate(valley):
    """From runs that serve the shorter lengths, too, at a constant rate; what only a short length
    asks for is run so far; under a schedule each length has runs of its own."""
    asked = valley(lambda name, rate, length, seed: bowl(1 / length)(name, rate, length, seed))
    for schedule, groups in (("constant", {(10, 100), (10,)}), ("linear", {(10,), (100,)})):
        asked.clear()
        chosen, _ = training.best_rates(SETTING_1._replace(schedule=schedule), TWO, [10, 100])
        assert [chosen[length][0][1]["lr"] for length in (10, 100)] == pytest.approx([0.1, 0.01])
        assert {lengths for _, _, lengths in asked} == groups
        ran = [(arguments["lr"], length) for contestants, seed, lengths in asked if seed == 0
               for optimizer, arguments in contestants for length in lengths
               if optimizer is optimizers.SGD]
        assert len(ran) == len(set(ran))  # no rate twice


def test_a_rate_at_an_end_is_said(valley):
    """If the rounds do not bring the best one inside."""
    valley(lambda name, rate, length, seed: 0.01 / rate if name == "SGD" else np.inf)
    _, scores = training.best_rates(SETTING_1, TWO, [100])
    assert training.best_in_words(scores[100]).endswith(
        " (an end of the grid), Adam none (lost at every rate)")


def test_pilots_and_fresh_runs():
    """A pilot's ends are those of shorter runs; fresh runs are as long as their length."""
    setting, lengths = SMALL._replace(batch=16), (20, 40)
    pilot = training.pilot.__wrapped__
    for end in (training.final, training.late_loss):
        ends = np.array(pilot(setting, (SGD, ADAM), 1000, lengths, end)["ends"])
        found = training.at_rates(setting, {length: (SGD, ADAM) for length in lengths},
                                  (1000, 1001), end)
        for k, length in enumerate(lengths):
            assert found[length]["loss"].shape == (2, 2, length)
            close(found[length]["ends"][0], ends[:, k])
        assert (ends[0] != ends[1]).all() and (found[40]["ends"][0] != found[40]["ends"][1]).all()


def test_a_pilot_of_a_train_of_ones_own(monkeypatch):
    """That is not @cached."""
    monkeypatch.setattr(training, "train", lambda setting, pair, seed, steps, every: dict(
        loss=np.full((len(pair), steps), 0.5), snapshots=np.zeros((len(pair), 4, 2))))
    found = training.pilot.__wrapped__(SMALL, (SGD, ADAM), 0, (20, 40), training.final)
    assert found["ends"] == [[0.5, 0.5]] * 2


def test_late_loss():
    """After 90 and 95 % of the steps, on twenty batches of 1,000 prompts; a run that is lost is
    infinite."""
    setting = SETTING_1._replace(batch=16, data=dict(n=4, d=2), layers=1)
    path = 0.3 * np.random.default_rng(0).standard_normal((40, 2, 1, 2, 2, 2))
    losses = [linattn.textbook_loss_and_grad(path[t, 0], training.evaluation_prompts(setting, k))[0]
              for t in (18, 19) for k in range(20)]  # of 100 steps, one every 5
    assert training.late_loss(setting, None, path, 100, 5) == pytest.approx(np.median(losses))
    path[:, 0] = NAN
    assert training.late_loss(setting, None, path, 100, 5) == INF


def test_the_loss_of_predicting_0():
    """E |x|^2, here 5 and 1; with a network of one w it is E (sum of x)^2, the same."""
    for setting, wanted in ((SETTING_1, 5), (data.SPHERICAL, 1),
                            (SETTING_1._replace(activation="no attention"), 5)):
        assert training.loss_of_0(setting) == pytest.approx(wanted, rel=0.05)
