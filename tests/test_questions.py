"""What only one question measures: each against an independent formula."""

import numpy as np
import pytest

import data
import linattn
import questions
import runs
import training
from data import SETTING_1
from optimizers import SGD, Adam, Muon, NormalizedSGD, SignDescent

descent = questions.descent.__wrapped__  # computed at every call


@pytest.fixture(autouse=True)
def kept_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "folder", tmp_path)


def test_spectra():
    """The largest eigenvalue, and the absolute ones of each block P_1, Q_1, ..., ascending."""
    setting = SETTING_1._replace(data=dict(n=4, d=2), layers=2, std=0.5)
    theta = training.initial(setting, training.streams(3)[0])
    H = linattn.hessian(theta, training.evaluation_batch(setting, 0))
    assert questions.sharpness(SETTING_1, theta, None, training.evaluation_batch(setting, 0)) == \
        pytest.approx(np.linalg.eigvals(H).real.max())
    blocks = [H[4 * b : 4 * b + 4, 4 * b : 4 * b + 4] for b in range(4)]
    np.testing.assert_allclose(questions.block_spectra(setting, 3)["values"],
                               [np.sort(abs(np.linalg.eigvals(B))) for B in blocks], atol=1e-9)


def test_fixed_layer_rates():
    """The factor of a layer is one over its typical gradient norm; their product is 1; SGD's step
    of the layer is multiplied by it."""
    norm = np.full((3, 5, 2), [8.0, 2.0])  # (seeds, steps, layers)
    norm[0, 0] = 1e9
    factors = questions.layer_factors(dict(layer_grad_norm=norm))
    np.testing.assert_allclose(factors, (0.5, 2))
    rng = np.random.default_rng(0)
    plain, fixed = SGD(lr=0.1), questions.FixedLayerRates(lr=0.1, factors=factors)
    theta = rng.standard_normal((2, 2, 3, 3))
    for _ in range(3):
        grad = rng.standard_normal(theta.shape)
        moved, wanted = fixed.step(theta, grad) - theta, plain.step(theta, grad) - theta
        np.testing.assert_allclose(moved[0], 0.5 * wanted[0])
        np.testing.assert_allclose(moved[1], 2 * wanted[1])


def test_unequal_variances():
    setting = questions.unequal_variances(SETTING_1, 16)
    x = training.evaluation_prompts(setting, 0).Z[:, :5]
    variances = x.var(axis=(0, 2))
    np.testing.assert_allclose(variances / variances[0], (1, 2, 4, 8, 16), rtol=0.06)
    assert variances.mean() == pytest.approx(1, rel=0.03)


def test_kendall_tau():
    """All pairs in the same order, in the opposite one, two of three; a tie is neither."""
    for a, b, wanted in (([1, 2, 3], [4, 5, 9], 1), ([1, 2, 3], [3, 2, 1], -1),
                         ([1, 2, 3], [1, 3, 2], 1 / 3), ([1, 1, 2], [1, 2, 3], 2 / 3),
                         ([1, np.inf, np.inf], [1, 2, 3], 2 / 3)):
        assert questions.kendall_tau(np.array(a), np.array(b)) == pytest.approx(wanted)


@pytest.mark.parametrize("prepared", ("nothing", "scaled", "whitened"))
def test_late_risks(prepared):
    """Squared error over mean square of the clean targets, what was scaled is undone; infinite
    where a run is lost. Weights of 0 predict 0, so their risk is 1."""
    setting = questions.unequal_variances(SETTING_1, 10)
    setting = setting._replace(data=dict(setting.data, noise=1.0, prepared=prepared))
    path = 0.3 * np.random.default_rng(0).standard_normal((3, 4, 2, 3, 2, 5, 5))
    path[1], path[2, 3] = 0, np.nan
    found = questions.late_risks(setting, path)
    assert found[1] == pytest.approx(1) and found[2] == np.inf
    plain, risks = setting._replace(data=dict(setting.data, prepared="nothing")), []
    for point in (2, 3):
        for k in range(20):
            seen, raw = (training.evaluation_prompts(each, k) for each in (setting, plain))
            length = np.linalg.norm(raw.Z[:, :5, -1], axis=1) if prepared == "scaled" else 1
            error = length * linattn.predict(path[0, point, 0], seen.Z) - raw.target
            risks.append((error**2).sum() / (raw.target**2).sum())
    assert found[0] == pytest.approx(np.median(risks), rel=1e-6)


def test_ridge_regression_is_the_bayes_predictor():
    """Of y = <w, x> + sigma e with w ~ N(0, Sigma^-1), prompt by prompt: in x / root of Sigma,
    where w ~ N(0, I), the penalty is sigma^2; a third or three times of it is worse."""
    plain = questions.unequal_variances(SETTING_1, 10)
    setting = plain._replace(data=dict(plain.data, noise=1.5))
    root, risks = np.sqrt(np.diag(plain.data["covariance"])), {0.3: [], 1: [], 3: []}
    for k in range(20):
        prompts = training.evaluation_prompts(setting, k)
        for factor, found in risks.items():
            errors = []
            for Z, target in zip(*prompts):
                x, y = Z[:5] / root[:, None], Z[5, :20]
                w = np.linalg.solve(x[:, :20] @ x[:, :20].T + factor * 1.5**2 * np.eye(5),
                                    x[:, :20] @ y)
                errors.append((w @ x[:, 20] - target) ** 2)
            found.append(np.mean(errors) / np.mean(prompts.target**2))
    assert questions.ridge_risk(setting) == pytest.approx(np.median(risks[1]))
    assert np.median(risks[1]) < min(np.median(risks[0.3]), np.median(risks[3]))


def test_off_identity():
    """0 for a multiple of the identity, 1 for what has no trace, sqrt(1/2) between."""
    swap, one = np.array([[0.0, 1.0], [1.0, 0.0]]), np.eye(2)
    np.testing.assert_allclose(questions.off_identity(np.array([-3 * one, swap, one + swap])),
                               [0, 1, 0.5**0.5], atol=1e-12)


@pytest.mark.parametrize("family", data.FAMILIES)
def test_the_closed_form_of_one_layer(family):
    """Its best step and loss, from the moments of each family: by least squares over many prompts,
    whose error the loss of one layer is."""
    m, m4 = questions.MOMENTS[family]
    df = dict(df=9.0) if family == "student" else {}  # so that the average converges
    if df:
        m, m4 = 5 * 9 / 7, 35 * 81 / (7 * 5)
    Z, target = data.sample_prompts(np.random.default_rng(0), 100_000, 20, 5, family, **df)
    x, y, query = Z[:, :5, :20], Z[:, 5, :20], Z[:, :5, 20]
    step = np.einsum("bin,bn,bi->b", x, y, query) / 20
    c = (step @ target) / (step @ step)
    best, loss = questions.closed_form(m, m4, 20, 5)
    assert c == pytest.approx(best, rel=0.03)
    assert np.mean((c * step - target) ** 2) == pytest.approx(loss, rel=0.05)


def test_how_far_behind_the_best(recwarn):
    """In logarithms; the best one is at 0 even if its loss is 0, what diverged at infinity."""
    pairs = ((-np.inf, -np.inf), (2.0, -np.inf), (3.0, 1.0), (np.inf, 1.0), (np.inf, np.inf))
    assert [questions.behind_best(*pair) for pair in pairs] == [0, np.inf, 2, np.inf, np.inf]
    scores = {0.1: 1.0, 0.2: 0.5, 0.5: 0.5 + np.log(2), 1.0: np.inf}
    assert questions.good_rates(scores) == [0.1, 0.2, 0.5]
    assert questions.good_rates({0.1: np.inf}) == []
    assert not recwarn.list


def test_descent_of_one_layer():
    """The closed form for Gaussian x: c = n / (n + d + 1), loss d (d + 1) / (n + d + 1)."""
    found = descent(SETTING_1._replace(layers=1, data=dict(n=10, d=2)), "P = g I")
    assert -found["multiples"][0, 1] == pytest.approx(10 / 13, rel=0.03)
    assert found["multiples"][0, 0] == 0  # the last P has no gradient
    assert found["loss"] == pytest.approx(6 / 13, rel=0.05) and found["slope"] < 1e-6


def test_descent_of_two_layers():
    """A minimum, of the loss on the batch that was fitted, in the directions of each kind; more
    freedom never ends higher."""
    setting = SETTING_1._replace(layers=2, data=dict(n=10, d=2))
    batch, losses = training.evaluation_batch(setting, 100), []
    free = {"one size": [(0, 1, 0, 1)], "L sizes": [(0, 1, 0, 0), (0, 0, 0, 1)],
            "P = g I": [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1)]}  # (g_1, c_1, g_2, c_2)
    for kind, directions in free.items():
        found = descent(setting, kind)

        def loss(multiples, prompts=batch):
            return linattn.loss_and_grad(multiples[:, :, None, None] * np.eye(2), prompts)[0]

        assert found["slope"] < 1e-6 and found["least"] == loss(found["multiples"])
        for direction in directions:
            away = 1e-3 * np.reshape(direction, (2, 2))
            slope = (loss(found["multiples"] + away) - loss(found["multiples"] - away)) / 2e-3
            assert abs(slope) < 1e-4
            assert loss(found["multiples"] + away) > found["least"]
        fixed = np.sum(directions, axis=0) == 0
        assert not found["multiples"].ravel()[fixed].any()
        others = [training.evaluation_batch(setting, k) for k in range(20)]
        assert found["loss"] == np.median([loss(found["multiples"], each) for each in others])
        losses.append(found["least"])
    assert losses[0] > losses[1] > losses[2] > 0


def test_descent_takes_the_best_of_its_starts(monkeypatch):
    """Here none moves: eight starts, whose sizes grow from 0.1 to 10 and whose g fall from 1 to 0.3
    from layer to layer; the slope is that of the loss along the numbers that may change."""
    starts = []
    monkeypatch.setattr(questions, "newton", lambda loss_and_slope, hessian, point: (
        starts.append((loss_and_slope(point)[0], point)), point)[1])
    setting = SETTING_1._replace(layers=3, data=dict(n=10, d=2))
    found, prompts = descent(setting, "P = g I"), training.evaluation_batch(setting, 100)
    assert len({loss for loss, _ in starts}) == 8 and found["least"] == min(starts)[0]
    for _, (g_1, g_2, *c) in starts:
        assert 1 >= g_1 >= g_2 >= 0.3 and -0.1 >= c[0] >= c[1] >= c[2] >= -10
    sizes = -np.array([point[2:] for _, point in starts])
    assert sizes.min() < 0.2 and sizes.max() > 4
    matrices = found["multiples"][:, :, None, None] * np.eye(2)
    grad = linattn.loss_and_grad(matrices, prompts)[1]
    slope = np.array([[np.trace(matrix) for matrix in layer] for layer in grad])
    slope[-1, 0] = 0  # of the last P
    assert found["slope"] == pytest.approx(np.linalg.norm(slope))
    starts.clear()
    descent(setting, "one size")  # from the mean of the sizes
    assert all(-0.1 >= c >= -10 for _, (c,) in starts)


@pytest.mark.slow
def test_descent_finds_the_least_loss():
    """A local minimum, of which there are several, would be reported as the limit of what these
    layers can do. The number: BFGS from many starts. (Three layers, 7.69e-4, take a minute.)"""
    found = descent(SETTING_1._replace(layers=2), "P = g I")
    assert found["loss"] == pytest.approx(0.0540, rel=0.01) and found["slope"] < 1e-6


def test_newton_leaves_a_saddle():
    """x^4 / 4 - x^2 / 2 + y^2 / 2 has a saddle at 0, which plain Newton steps would find from
    here, and minima -1/4 at x = 1 and -1. It ends there to the last digits, and soon."""
    calls = []

    def loss_and_slope(point):
        calls.append(point)
        x, y = point
        return x**4 / 4 - x**2 / 2 + y**2 / 2, np.array([x**3 - x, y])

    end = questions.newton(loss_and_slope, lambda point: np.diag([3 * point[0] ** 2 - 1, 1]),
                          np.array([1e-3, 2.0]))
    np.testing.assert_allclose(end, [1, 0], atol=1e-7)
    assert len(calls) < 150
    stopped = questions.newton(loss_and_slope, lambda point: np.eye(2), np.array([3.0, 0]), steps=1)
    assert stopped[0] != 3 and abs(stopped[0] - 1) > 1e-3


# ---- lead ----------------------------------------------------------------------------------------


def test_a_condition_differs_from_setting_1_in_what_its_name_says():
    """Tails and depth alone, at the same E|x|^2 and clip limit; variances along the axes or not."""
    for name in ("x on the sphere", "heavy-tailed x", "heavy-tailed x, L = 6"):
        setting = questions.CONDITIONS[name].setting
        assert setting._replace(data=SETTING_1.data, layers=3) == SETTING_1
        x = training.evaluation_prompts(setting, 0).Z[:, :5]
        assert (x**2).sum(axis=1).mean() == pytest.approx(5, rel=0.1)
    along, rotated = (np.array(questions.CONDITIONS[name].setting.data["covariance"]) for name in (
        "variances 16-fold", "variances 16-fold, rotated"))
    np.testing.assert_allclose(np.linalg.eigvalsh(rotated), np.diag(along))
    assert along[4, 4] / along[0, 0] == pytest.approx(16) and np.trace(along) == 5
    assert abs(rotated - np.diag(np.diag(rotated))).max() > 0.3


@pytest.mark.parametrize("optimizer, same", (
    (lambda: SGD(lr=0.05), True), (lambda: NormalizedSGD(lr=0.01), True),
    (lambda: NormalizedSGD(lr=0.01, granularity="layer"), True),
    (lambda: NormalizedSGD(lr=0.01, granularity="block"), True), (lambda: Muon(lr=0.01), True),
    (lambda: NormalizedSGD(lr=0.01, granularity="row"), False),
    (lambda: SignDescent(lr=0.01), False), (lambda: Adam(lr=0.01), False)))
def test_what_a_rotation_of_x_changes(optimizer, same):
    """Start and prompts rotated by R: the same losses, if an optimizer scales nothing by rows or
    entries."""
    rng = np.random.default_rng(0)
    R = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    start, batches = linattn.init_params(rng), [data.sample_prompts(rng, 50) for _ in range(10)]

    def losses(R):
        theta, rule, found = R @ start @ R.T, optimizer(), []
        for Z, target in batches:
            prompts = data.Prompts(np.concatenate([R @ Z[:, :5], Z[:, 5:]], axis=1), target)
            loss, grad = linattn.loss_and_grad(theta, prompts)
            theta = rule.step(theta, grad)
            found.append(loss)
        return found

    assert np.allclose(losses(np.eye(5)), losses(R), rtol=1e-10, atol=0) == same


@pytest.mark.parametrize("values, words", (
    ([2.0] * 6, "Adam lower"), ([0.5] * 6, "SGD lower"), ([2.0] * 5 + [0.5], "open"),
    ([1.1] * 6, "Adam lower, alike"), ([0.9] * 6, "SGD lower, alike"), ([0.9, 1.1] * 3, "alike"),
    ([0.79] + [1.0] * 5, "open"), ([1.26] + [1.0] * 5, "open"), ([np.nan] * 6, "open")))
def test_which_ends_lower(values, words):
    """Alike only if the whole interval lies within 0.8 and 1.25: not told apart is not alike."""
    assert questions.lower(np.array(values)) == words


def test_after_the_longest_run():
    """From losses (seeds, SGD and Adam, steps): the share of the steps after which the better one
    is where the other ends; a floor; still falling."""
    def said(sgd, adam, before):
        loss = np.array([[sgd, adam]] * 6)
        run = dict(loss=loss, ends=training.final_loss(loss))
        return [part.values if isinstance(part.values, str) else part.values[0] for part in
                questions.after_the_longest("", 400, run, np.array([before] * 6))]

    flat, t = np.ones(400), np.arange(400)
    fallen = np.where(t < 100, 9.0, 0.5)  # the 26th loss below 1 makes the median of fifty 0.5
    assert said(flat, fallen, (1.0, 0.5)) == [126 / 400, "both at a floor"]
    assert said(flat, fallen, (1.0, 0.7)) == [126 / 400, "settled"]
    assert said(flat, np.exp(-t / 100), (1.0, 1.0))[1] == "still falling"


def test_a_share_of_the_steps_to_a_millionth():
    loss = np.where(np.arange(100) < 40, 5.0, 1e-6)
    assert questions.steps_to_a_millionth(SETTING_1, loss, None, 100, 5) == 66 / 100
    assert questions.steps_to_a_millionth(SETTING_1, loss, None, 50, 5) == np.inf


def test_lead_in_a_world_whose_numbers_are_known(monkeypatch):
    """SGD ends at 6 times Adam's loss at a constant rate, at 1.1 under a falling one; it takes
    three times the steps, and its curvature is four times as large."""
    def chosen(setting, candidates, lengths, end):
        tuned.append((setting.schedule, list(lengths), candidates, end))
        return ({length: tuple((each, dict(lr=1)) for each, _ in candidates.values())
                 for length in lengths},
                {length: dict(SGD="0.2", Adam="0.02") for length in lengths})

    def runs_at(setting, chosen, seeds, end):
        found = {}
        for length in chosen:
            sgd = 6.0 if setting.schedule == "constant" else 1.1
            ends = np.array([[sgd, 1.0]] * len(seeds))
            half = np.where(np.arange(length) < np.array([[30], [10]]), 5.0, 1.0)
            found[length] = dict(ends=ends, loss=np.array([half] * len(seeds)))
        return found

    tuned = []
    monkeypatch.setattr(questions, "best_rates", chosen)
    monkeypatch.setattr(questions, "at_rates", runs_at)
    monkeypatch.setattr(questions, "stacked", lambda function, tasks: dict(values=np.array(
        [np.multiply.outer([4.0, 1.0], np.ones((len(task[5]), 3))) for task in tasks])))
    monkeypatch.setattr(questions, "noise_norms", lambda setting, seeds, draws: (
        np.tile(np.where(np.arange(100) < 98, 1.0, 3.0), (6, 1)),
        np.tile(np.where(np.arange(100) < 98, 1.0, 1.5), (6, 20, 1))))
    arrays, parts = questions.lead(seeds=6, steps=1600, conditions=("n = 80", "warm-up"))
    found = {part.key: part.values if isinstance(part.values, str) else np.median(part.values)
             for part in parts}
    for length in (400, 1600):
        key = f"n = 80 constant {length}"
        assert [found[key], found[f"{key} SGD"], found[f"{key} Adam"]] == [6, 6, 1]
        assert found[f"{key} lower"] == "Adam lower"
        assert found[f"{key} rates"] == "SGD 0.2, Adam 0.02"
    assert found["n = 80 falling 1600"] == pytest.approx(1.1)
    assert found["n = 80 falling 1600 lower"] == "Adam lower, alike"
    assert (found["n = 80 half"], found["n = 80 smoothness"], found["n = 80 noise"]) == (
        pytest.approx(56 / 21), 4, 2)
    assert [schedule for schedule, lengths, *_ in tuned if lengths] == ["constant", "linear", "warm-up"]
    assert tuned[0][1:] == ([400, 1600], dict(SGD=(SGD, {}), Adam=(Adam, {})), training.final)
    assert arrays["n = 80 constant ratio"].tolist() == [[6, 6, 6]] * 2
