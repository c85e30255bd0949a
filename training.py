"""The protocol: `train` is the loop; then what is measured along a run, and what is read off
losses.

    setting      a row of the paper's experiments: data, depth, rates, clip limit (data.py)
    contestants  ((optimizer's class, dict of its arguments), ...), as from `contestants`
    snapshot     the params before and after one step
    diverged     of a run: lost, NaN from there on; its final loss counts as infinite

Arrays are (seeds, optimizers, steps) or begin in this order. Functions with @cached are tasks for
`parallel` (runs.py): `parallel(train, [(SETTING_1, contestants(SETTING_1), seed, 800) for seed in
range(6)])`. Source: Ahn et al., ICLR 2024, arXiv 2310.01082, section 3.
"""

import inspect
from functools import partial, wraps
from math import ceil

import numpy as np

import data
import linattn
import mlp
import optimizers
from runs import cached, one_pool, parallel

FRESH = 1000  # the first of the seeds that were not looked at before the bounds were set
FRESHER = 2000  # the same for C12, of which the seeds 1000 to 1004 were looked at


@cached
@np.errstate(all="ignore")  # a run that diverges says so by its loss
def train(setting, contestants, seed, steps, every=50):
    """Train the contestants side by side: the same initial weights, the same fresh batches.

    Returns loss and grad_norm (contestants, steps), both taken before the step, the norm before
    clipping; layer_grad_norm (contestants, steps, layers), the same layer by layer (of an MLP's
    flat params: of all); and snapshots (contestants, ceil(steps / every), 2, *params.shape), the
    params before and after steps 0, every, 2 every, ... As no batch is seen twice (unless
    setting.fixed), the training loss is an unbiased test loss.

    The prediction is a polynomial of degree 3^L in a prompt, so deep models overflow on a rare one:
    such a step moves nothing, and counts as an infinite loss. A run that has `diverged` is left
    alone: its arrays are NaN from there on.
    """
    check_run(setting, contestants, seed, steps, every)
    weight_rng, batch_rng = streams(seed)
    start = initial(setting, weight_rng)
    gradient = gradient_of(setting)
    rules = [optimizer(**arguments) for optimizer, arguments in contestants]  # with their moments
    params = [start for _ in contestants]
    loss = np.full((len(contestants), steps), np.nan)
    grad_norm = np.full((len(contestants), steps), np.nan)
    layers = 1 if start.ndim == 1 else len(start)
    layer_grad_norm = np.full((len(contestants), steps, layers), np.nan)
    snapshots = np.full((len(contestants), ceil(steps / every), 2, *start.shape), np.nan)
    for t in range(steps):
        if t == 0 or not setting.fixed:
            prompts = fresh_batch(batch_rng, setting)
        for i, rule in enumerate(rules):
            if diverged(loss[i, :t]):
                continue
            before = params[i]
            loss[i, t], grad = gradient(before, prompts)
            grad_norm[i, t] = np.linalg.norm(grad)
            layer_grad_norm[i, t] = np.linalg.norm(grad.reshape(layers, -1), axis=1)
            if np.isfinite([loss[i, t], grad_norm[i, t]]).all():
                after = stepped(rule, before, optimizers.clip_global_norm(grad, setting.clip))
                left = rate_left(setting, t / steps)
                params[i] = after if left == 1 else before + left * (after - before)
            else:
                loss[i, t] = grad_norm[i, t] = layer_grad_norm[i, t] = np.inf
            if not np.isfinite(params[i]).all():
                loss[i, t] = grad_norm[i, t] = layer_grad_norm[i, t] = np.nan
            if t % every == 0:
                snapshots[i, t // every] = before, params[i]
    return dict(loss=loss, grad_norm=grad_norm, layer_grad_norm=layer_grad_norm,
                snapshots=snapshots)


def diverged(loss):
    """Whether a run is lost, from its losses so far: a step led to params that are not finite, or
    the last twenty losses were all infinite or above 1,000 times the first one. Twenty, because
    single steps jump higher in Settings 2 and 3; the loss decides, because clipping keeps params
    finite."""
    recent = loss[-20:]
    far = len(loss) >= 20 and not (np.isfinite(recent) & (recent <= 1000 * loss[0])).any()
    return far or np.isnan(recent[-1:]).any()


def stepped(rule, params, grad):
    """The optimizer's new params. Copied both ways: it may change params in place, or go on using
    the array that it returns."""
    returned = rule.step(params.copy(), grad)
    if returned is None:
        raise ValueError("step returned None, wants the new params: is its `return` missing?")
    try:
        after = np.array(returned, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"step returned {type(returned).__name__}, wants one array") from error
    if after.shape != params.shape:
        raise ValueError(f"step returned shape {after.shape}, wants {params.shape}")
    return after


def rate_left(setting, share):
    """The rate after this share of the steps, over the full one. A rate that changes shortens the
    moves and changes nothing else: so the moves are multiplied by it, and no optimizer need know
    it."""
    if setting.schedule == "constant":
        return 1.0
    if setting.schedule == "linear":
        return 1 - share
    if setting.schedule == "warm-up":
        return min(1.0, 10 * share)
    raise ValueError(f"schedule: got {setting.schedule!r}, wants constant, linear or warm-up")


def contestants(setting, classes=(optimizers.SGD, optimizers.Adam), lr=None):
    """((class, its arguments), ...), each at its rate in lr, {class's name: rate}, or else that of
    the setting. Raises ValueError where there is none."""
    classes = check_optimizers(classes)
    rates = setting.lr | (check_rates(lr, classes) or {})
    for each in classes:
        if each.__name__ not in rates:
            raise ValueError(f"lr: got none for {each.__name__} in {setting.name}, wants one, as "
                             f"--lr {each.__name__}=RATE or lr=dict({each.__name__}=RATE)")
    return tuple((each, dict(lr=rates[each.__name__])) for each in classes)


def streams(seed):
    """Two generators: for the initial weights, and for the batches."""
    return [generator(child) for child in np.random.SeedSequence(seed).spawn(2)]


def generator(seed):
    """SFC64 draws normals in 5/6 of the time of numpy's default."""
    return np.random.Generator(np.random.SFC64(seed))


def initial(setting, rng):
    """Initial params: the attention's, or, with an MLP in front, a flat array of all."""
    layers, d = setting.layers, setting.data["d"]
    if setting.activation == "mlp":
        return mlp.init_mlp_params(rng, layers, d, std=setting.std)
    if setting.activation == "transformer":
        return mlp.init_transformer_params(rng, layers, d, setting.std, setting.full)
    return linattn.init_params(rng, layers, d, setting.std, setting.full)


def gradient_of(setting):
    """The function (params, prompts) -> (loss, gradient)."""
    if setting.activation == "mlp":
        return partial(mlp.mlp_loss_and_grad, layers=setting.layers)
    if setting.activation == "transformer":
        return mlp.transformer_loss_and_grad
    if setting.activation == "no attention":
        return mlp.network_loss_and_grad
    return partial(linattn.loss_and_grad, activation=setting.activation)


def fresh_batch(rng, setting):
    """A fresh batch, in the form that the model reads."""
    return as_read(data.sample_prompts(rng, setting.batch, **setting.data), setting)


def as_read(prompts, setting):
    """For linear attention the Gram form, for a network without attention its columns."""
    if setting.activation == "linear":
        return linattn.compress(prompts)
    if setting.activation == "no attention":
        return mlp.columns(prompts)
    return prompts


def stacked(function, tasks):
    """The results of `parallel`, {name: array}, the tasks first."""
    results = parallel(function, tasks)
    return {name: np.array([result[name] for result in results]) for name in results[0]}


# ---- Measured at points of a run -----------------------------------------------------------------


@cached
@np.errstate(all="ignore")
def along(measure, setting, contestants, seed, steps, points, batches=1, every=50):
    """values (contestants, points, batches, ...): measure(setting, before, after, prompts) at these
    snapshots of `train`, on the first evaluation batches; NaN where a run had diverged."""
    path = train(setting, contestants, seed, steps, every)["snapshots"][:, list(points)]
    evaluation = [evaluation_batch(setting, k) for k in range(batches)]
    alive = np.isfinite(path).reshape(*path.shape[:2], -1).all(axis=-1)
    finite = np.where(np.isfinite(path), path, 0)  # so that nothing raises; NaN again below
    values = np.array([[[measure(setting, before, after, prompts) for prompts in evaluation]
                        for before, after in each] for each in finite], float)
    values[~alive] = np.nan
    return dict(values=values)


def values_along(measure, setting, contestants, seeds, *rest):
    """The same for every seed: (seeds, contestants, points, batches, ...)."""
    return stacked(along, [(measure, setting, contestants, seed, *rest)
                           for seed in seeds])["values"]


def evaluation_prompts(setting, k):
    """Evaluation batch k, of 1,000 prompts: the same for every run and seed."""
    return data.sample_prompts(generator([2310, k]), 1000, **setting.data)


def evaluation_batch(setting, k):
    """The same, in the form that the model reads."""
    return as_read(evaluation_prompts(setting, k), setting)


def loss_at(setting, before, _, prompts):
    """The loss before the step."""
    return gradient_of(setting)(before, prompts)[0]


def gradient_norm(setting, before, _, prompts):
    """Euclidean norm of the whole gradient."""
    return np.linalg.norm(gradient_of(setting)(before, prompts)[1])


def smoothness(setting, before, after, prompts):
    """Directional smoothness v^T H v, v the direction of the step; NaN if there was none."""
    if (after == before).all():
        return np.nan
    return linattn.curvature(before, after - before, prompts, gradient_of(setting))


CLIPPED = "as it is", "clipped at 0.9", "clipped at 0.5", "sign"


def clipped_smoothness(setting, before, after, prompts):
    """v^T H v (2, 4) for two directions at one point, the gradient on these prompts and the step,
    each as it is, with its coordinates limited to the quantiles 0.9 and 0.5 of their absolute
    values (of those that are not 0), and with all limited to the same, which is its sign; NaN if
    there was no step."""
    gradient = gradient_of(setting)
    grad = gradient(before, prompts)[1]
    found = np.full((2, len(CLIPPED)), np.nan)
    for i, direction in enumerate((grad, after - before)):
        if direction.any():
            limits = np.quantile(np.abs(direction[direction != 0]), (0.9, 0.5))
            kinds = direction, *(np.clip(direction, -c, c) for c in limits), np.sign(direction)
            found[i] = [linattn.curvature(before, v, prompts, gradient) for v in kinds]
    return found


def linear_alone(setting):
    require(setting.activation == "linear", "activation", setting.activation,
            "linear attention for this measure of the Hessian")


def spectral_norm(setting, before, _, prompts):
    """Largest |eigenvalue| of the Hessian."""
    linear_alone(setting)
    return np.abs(np.linalg.eigvalsh(linattn.hessian(before, prompts))).max()


def diagonal(setting, before, _, prompts):
    """The Hessian's diagonal, (params.size,)."""
    if setting.activation == "mlp":
        return mlp.mlp_hessian_diagonal(before, prompts, setting.layers)
    linear_alone(setting)
    return linattn.hessian_diagonal(before, prompts).ravel()


def condition(setting, before, after, prompts):
    """R_med of the loss at the point before the step."""
    return r_med(diagonal(setting, before, after, prompts))


def r_med(diagonals):
    """The robust condition number max |H_ii| / median |H_ii| over the last axis; the zeros of the
    last P, which is not trained, count in the median, as in the paper."""
    return np.abs(diagonals).max(axis=-1) / np.median(np.abs(diagonals), axis=-1)


@cached
def noise(setting, seed, draws):
    """Gradient noise at initialisation, g_batch - g_big, where g_big is the mean gradient of 100
    batches. Returns norms (draws,), and what they are to be compared with: null (20, draws), the
    norms of twenty samples of as many Gaussian vectors with the noise's own mean and covariance.

    To sample these, write the noise in the eigenvectors of its covariance. There the entries of a
    Gaussian vector are independent, their variances are the eigenvalues, and its norm is the same.
    The singular values of the centred draws give both.
    """
    weights, batches = streams(seed)
    params, gradient = initial(setting, weights), gradient_of(setting)

    def one():
        return gradient(params, fresh_batch(batches, setting))[1].ravel()

    big = sum(one() for _ in range(100)) / 100
    noises = np.array([one() - big for _ in range(draws)])  # (draws, params.size)
    mean = noises.mean(axis=0)
    _, singular, directions = np.linalg.svd(noises - mean, full_matrices=False)
    std = singular / np.sqrt(max(1, draws - 1))
    means, rng = directions @ mean, generator([2310, seed])
    off = max(0, np.sum(mean**2) - np.sum(means**2))  # of the mean, where nothing varies
    null = [np.sqrt(off + sum(
        (m + s * rng.standard_normal(draws)) ** 2 for m, s in zip(means, std))) for _ in range(20)]
    return dict(norms=np.linalg.norm(noises, axis=1), null=null)


def noise_norms(setting, seeds, draws):
    """Norms of the noise (seeds, draws), and of Gaussian vectors (seeds, samples, draws)."""
    run = stacked(noise, [(setting, seed, draws) for seed in seeds])
    return run["norms"], run["null"]


# ---- Read off losses, paths and noise ------------------------------------------------------------


def final_loss(loss):
    """The median over the last tenth of the last axis, the steps; infinite if the run diverged."""
    with np.errstate(all="ignore"):
        final = np.median(loss[..., -max(1, loss.shape[-1] // 10) :], axis=-1)
    return np.where(np.isnan(final), np.inf, final)


def ratio(first, second):
    """first / second; NaN of two infinite numbers, if both runs diverged."""
    with np.errstate(all="ignore"):
        return first / second


def last_fifty(loss):
    """Medians of the last 50 losses (..., steps) after every step; in the beginning, of all."""
    window = min(50, loss.shape[-1])
    early = [np.median(loss[..., :t], axis=-1)[..., None] for t in range(1, window)]
    later = np.lib.stride_tricks.sliding_window_view(loss, window, axis=-1)
    return np.concatenate([*early, np.median(later, axis=-1)], axis=-1)


def steps_to(target, loss):
    """After how many steps (...,) the median of the last 50 losses (..., steps) is first below the
    target; infinitely many if it never is. Before step 50 the median is that of all losses so far,
    so that a fast run's count is up to twice that of its first loss below the target."""
    with np.errstate(all="ignore"):
        below = last_fifty(loss) < target
    return np.where(below.any(axis=-1), 1 + below.argmax(axis=-1), np.inf)


def running_median(series):
    """(..., blocks): medians of (..., steps) over 50 blocks of the steps, or of as many as there
    are."""
    blocks = np.array_split(series, min(50, series.shape[-1]), axis=-1)
    return np.stack([np.median(block, axis=-1) for block in blocks], axis=-1)


def block_centres(steps):
    """Where the blocks of `running_median` lie."""
    return np.array([block.mean() for block in np.array_split(np.arange(steps), min(50, steps))])


def points_of(steps, count, every=50):
    """Numbers of `count` snapshots, or of all if there are fewer, from the first to the last."""
    return tuple(int(point) for point in
                 np.unique(np.linspace(0, (steps - 1) // every, count).astype(int)))


def without_start(path, start=0.1):
    """The median over a path (..., points) without its first tenth, or another share of it; NaN if
    a run had diverged at its end. Earlier NaN, of steps that moved nothing, do not count."""
    path = path[..., int(start * path.shape[-1]) :]
    gone = np.isnan(path[..., -1])
    return np.where(gone, np.nan, np.nanmedian(np.where(gone[..., None], 0, path), axis=-1))


def log_slope(x, y):
    """Slope of log y against log x (points,), where both are positive; NaN of fewer than two x."""
    with np.errstate(all="ignore"):
        x, y = np.log(x), np.log(y)
    good = np.isfinite(x) & np.isfinite(y)
    return np.polyfit(x[good], y[good], 1)[0] if len(set(x[good])) > 1 else np.nan


def spread(norms):
    """The 99 % quantile over the median, over the last axis."""
    high, middle = np.quantile(norms, (0.99, 0.5), axis=-1)
    return high / middle


def skewness(values):
    """The third standardised central moment, over the last axis."""
    with np.errstate(all="ignore"):  # a single draw has no variance
        centred = values - values.mean(axis=-1, keepdims=True)
        scaled = centred / values.std(axis=-1, keepdims=True)  # before the power, which overflows
        return (scaled**3).mean(axis=-1)


def tail_shares(draws):
    """200 shares of the draws, or as many as there are ranks: those of `tail`, with both ends."""
    return np.unique(np.geomspace(1, draws, 200).astype(int)) / draws


def tail(norms):
    """Of norms (..., draws): the values that these shares of the draws reach or exceed, over their
    median; (..., shares)."""
    draws = norms.shape[-1]
    descending = -np.sort(-norms, axis=-1) / np.median(norms, axis=-1)[..., None]
    return descending[..., np.round(tail_shares(draws) * draws).astype(int) - 1]


def noise_tails(name, norms, null):
    """What a figure shows of noise norms (seeds, draws) and Gaussian ones (seeds, samples, draws),
    beside the `tail_shares`."""
    return {f"{name} tail": tail(norms),  # (seeds, shares)
            f"{name} null": np.median(tail(null), axis=(0, 1))}  # (shares,)


# ---- Each optimizer at its best rate -------------------------------------------------------------

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def by_name(classes):
    """{name: (class, no arguments)}: the candidates of `sweep` and `best_rates`."""
    return {each.__name__: (each, {}) for each in classes}


def grid(settings, candidates):
    """Rates for `sweep`, {(setting's name, candidate's name): rates}: seven, 1, 2 and 5 times
    powers of ten. SGD moves by rate times gradient, the others by the rate itself, so SGD has
    limits of its own. A reader's optimizer gets those of the others.
    Where the gradient is clipped at less than 1, x is small and the layers must grow further: SGD
    wants a hundred times larger rates there, others ten."""
    found = {}
    for name, setting in settings.items():
        for each in candidates:
            low, high = (0.005, 0.5) if each == "SGD" else (0.001, 0.1)
            factor = 1 if setting.clip >= 1 else 100 if each == "SGD" else 10
            found[name, each] = [factor * rate for rate in RATES if low <= rate <= high]
    return found


def sweep(settings, candidates, rates, seeds, steps):
    """Train every candidate at each of its rates in every setting, side by side.

    settings {name: Setting}, candidates {name: (class, arguments without lr)}, rates as of `grid`.
    Returns {(setting's name, candidate's name): {rate: run}}, a run what `train` gives of this one,
    its first axis the seeds.
    """
    pairs = {name: [(each, rate) for each in candidates for rate in rates[name, each]]
             for name in settings}
    tasks = {(name, seed): (setting, tuple((candidates[each][0], dict(candidates[each][1], lr=rate))
                                           for each, rate in pairs[name]), seed, steps)
             for name, setting in settings.items() for seed in seeds}
    results = dict(zip(tasks, parallel(train, tasks.values())))
    found = {(name, each): {} for name in settings for each in candidates}
    for name in settings:
        for i, (each, rate) in enumerate(pairs[name]):
            found[name, each][rate] = {
                what: np.array([results[name, seed][what][i] for seed in seeds])
                for what in results[name, seeds[0]]}
    return found


def log_loss(by_rate):
    """For each rate of {rate: run} the mean over seeds of the log final loss: infinite if one
    diverged."""
    final = {rate: final_loss(run["loss"]) for rate, run in by_rate.items()}  # (seeds,) each
    with np.errstate(divide="ignore"):  # a loss of 0
        return {rate: np.log(values).mean() if np.isfinite(values).all() else np.inf
                for rate, values in final.items()}


def best_rate(by_rate):
    """The rate with the lowest log loss; the first one if runs diverged at each."""
    scores = log_loss(by_rate)
    return min(scores, key=scores.get)


def good_rates(scores):
    """(lowest, highest) rate of {rate: score} whose loss is within a factor 2 of the best one's;
    NaN if all were lost."""
    good = [rate for rate, score in scores.items()
            if score < np.inf and score <= min(scores.values()) + np.log(2)]
    return (min(good), max(good)) if good else (np.nan, np.nan)


def about_rates(by_rate, used):
    """What the losses at several rates say of the rate in use: the best one, with a warning where
    it is the first or the last of the grid, and those within a factor 2 of its loss."""
    low, high = good_rates(log_loss(by_rate))
    rates, best = list(by_rate), best_rate(by_rate)
    final = np.array([final_loss(run["loss"]) for run in by_rate.values()])
    diverged = f"{np.isinf(final).sum()} of {final.size} runs diverged"
    if np.isnan(low):
        return f"none, {diverged}"
    end = " (an end of the grid)" if best in (rates[0], rates[-1]) else ""
    return (f"{best:g}{end}, in use {used:g}; within a factor 2 of the best: {low:g} to "
            f"{high:g}; {diverged}")


def rates_of(contestants):
    """In words."""
    return ", ".join(f"{each.__name__} {arguments['lr']:g}" for each, arguments in contestants)


def labels_of(settings, **arrays):
    """What a figure wants to know of its settings: "settings", their names, and "titles"; with
    further arrays."""
    return {"settings": list(settings), "titles": [
        f"{name}: {data.about_x(setting)}" for name, setting in settings.items()]} | arrays


# ---- The protocol of best rates ------------------------------------------------------------------

FINE = tuple(float(f"{a}e{k}") for k in range(-10, 8) for a in (1, 1.5, 2, 3, 5, 7))
START = (0.01, 0.03, 0.1)  # the grid, which grows
PILOTS = range(4)  # the seeds on which rates are chosen
ROUNDS = 8


def final(setting, loss, snapshots, length, every):
    """The `final_loss` of the first `length` steps of a run, its loss (steps,) and snapshots
    (points, 2, ...), one every so many steps."""
    return final_loss(loss[:length])


@np.errstate(all="ignore")
def late_loss(setting, loss, snapshots, length, every):
    """The same on fresh prompts, comparable whatever the batch was: the median loss on twenty
    evaluation batches of 1,000 prompts after 90 and 95 % of the steps; infinite if it diverged."""
    late = [snapshots[int(share * length) // every, 0] for share in (0.9, 0.95)]
    return np.median([loss_at(setting, params, None, evaluation_batch(setting, k))
                      if np.isfinite(params).all() else np.inf for params in late
                      for k in range(20)])


def best_rates(setting, candidates, lengths, end=final, worst=None):
    """Each candidate's best rate for each length, from pilots as long as the runs they are for.

    candidates {name: (class, arguments without lr)}; end(setting, loss (steps,), snapshots, length,
    every) of a run is what is compared, as in `final`. A rate's score is the mean over pilot seeds
    of its log, infinite if a pilot diverged or ended above `worst`, the loss of predicting 0. The
    grid grows, ROUNDS times at most, until the best rate is inside it; then the two rates on each
    side of it are tried. Of the rates whose loss is within 5 % of the best the lowest is taken,
    because the cliff is above; it, too, lies inside the grid. A run at a constant rate serves all
    shorter lengths; under a schedule each length has runs of its own. Returns {length: contestants}
    and {length: {name: {rate: score}}}.
    """
    scores = {length: {name: {} for name in candidates} for length in lengths}
    worst = worst or loss_of_0(setting)
    for _ in range(ROUNDS):
        for longest in sorted(lengths, reverse=True):
            serves = [length for length in lengths if length == longest
                      or (length < longest and setting.schedule == "constant")]
            pairs = [(name, rate) for name in candidates for rate in further(scores[longest][name])]
            tried = scores_of(setting, [(candidates[name], rate) for name, rate in pairs], serves,
                              end, worst)
            for (name, rate), row in zip(pairs, tried):
                for length, score in zip(serves, row):
                    scores[length][name][rate] = score
    return {length: tuple((optimizer, dict(arguments, lr=taken(scores[length][name])))
                          for name, (optimizer, arguments) in candidates.items())
            for length in lengths}, scores


def scores_of(setting, pairs, lengths, end, worst):
    """Of ((class, arguments), rate) pairs (pairs, lengths), side by side on each pilot seed."""
    if not pairs:
        return np.empty((0, len(lengths)))
    runs = tuple((optimizer, dict(arguments, lr=rate)) for (optimizer, arguments), rate in pairs)
    ends = stacked(pilot, [(setting, runs, seed, tuple(lengths), end) for seed in PILOTS])["ends"]
    with np.errstate(divide="ignore"):  # a loss of 0
        return np.log(np.where(ends < worst, ends, np.inf)).mean(axis=0)


def taken(scores):
    """Of {rate: score} the lowest rate whose loss is within 5 % of the best."""
    least = min(scores.values())
    return min(rate for rate, score in scores.items() if score <= least + np.log(1.05))


def further(scores):
    """The rates still to try after {rate: score}. None tried: START. All lost: a coarse step beyond
    both ends. The best at the upper end: a coarse step above. The best, or the one taken, at the
    lower end: one below. Else what is missing of the two rates on each side of the best, for one
    that had bad luck with the pilots may hide a better one behind it."""
    if not scores:
        return START
    low, high = FINE.index(min(scores)), FINE.index(max(scores))
    best, lost = FINE.index(min(sorted(scores), key=scores.get)), min(scores.values()) == np.inf
    more = [FINE[high + 3]] if best == high or lost else []
    if lost or (not more and FINE.index(taken(scores)) == low):
        more.append(FINE[low - 3])
    return more or [rate for rate in FINE[best - 2 : best + 3] if rate not in scores]


def taken_in_words(scores):
    """The rate taken of {rate: score}, and what is wrong with it."""
    if min(scores.values()) == np.inf:
        return "none (lost at every rate)"
    rate = taken(scores)
    return f"{rate:g}{' (an end of the grid)' if rate in (min(scores), max(scores)) else ''}"


@cached
def pilot(setting, contestants, seed, lengths, end):
    """ends (contestants, lengths): `end` of the first so many steps of one run."""
    every = every_of(lengths)
    unkept = getattr(train, "__wrapped__", train)  # a reader's own may not be @cached
    run = unkept(setting, contestants, seed, max(lengths), every)
    return dict(ends=[[end(setting, loss, path, length, every) for length in lengths]
                      for loss, path in zip(run["loss"], run["snapshots"])])


def every_of(lengths):
    """Steps between snapshots, so that the shortest length has two in its last tenth."""
    return max(1, min(lengths) // 20)


def at_rates(setting, chosen, seeds, end=final):
    """{length: run} for {length: contestants}: runs only as long as their length. A run is what
    `train` gives, its axes (seeds, contestants, ...), with ends (seeds, contestants)."""
    found = {}
    for length, contestants in chosen.items():
        every = every_of([length])
        run = stacked(train, [(setting, contestants, seed, length, every) for seed in seeds])
        run["ends"] = np.array([[end(setting, loss, path, length, every)
                                 for loss, path in zip(losses, paths)]
                                for losses, paths in zip(run["loss"], run["snapshots"])])
        found[length] = run
    return found


def at_best_rates(setting, candidates, steps, seeds, end=final, worst=None):
    """At one length: the run, as of `at_rates`; its contestants; and {name: {rate: score}}."""
    chosen, scores = best_rates(setting, candidates, [steps], end, worst)
    return at_rates(setting, chosen, seeds, end)[steps], chosen[steps], scores[steps]


def best_in_words(scores):
    """Of {name: {rate: score}}: each one's rate."""
    return ", ".join(f"{name} {taken_in_words(each)}" for name, each in scores.items())


def loss_of_0(setting):
    """The loss of predicting 0, on the typical of twenty evaluation batches."""
    return np.median([np.mean(evaluation_batch(setting, k).target ** 2) for k in range(20)])


# ---- The door of an experiment -------------------------------------------------------------------

def experiment(first=0):
    """For a function of the books: its arguments are `checked`, and `seeds`, if it is a number,
    becomes so many seeds from `first` on. All that it computes shares its processes."""
    def decorate(function):
        signature = inspect.signature(function)

        @wraps(function)
        def door(*arguments, **options):
            bound = signature.bind(*arguments, **options)
            bound.apply_defaults()
            found = checked(door, bound.arguments)
            if isinstance(found["seeds"], int):
                found["seeds"] = tuple(range(first, first + found["seeds"]))
            with one_pool():
                return function(**found)
        door.full = {}  # the arguments of `--full`, unless the book says more
        return door
    return decorate


def checked(function, arguments):
    """Arguments of an experiment, {name: value} with all that it takes: whole numbers as such, one
    class or text as a tuple. Raises ValueError, in a line that names the argument, for what has no
    plain meaning; what is a number, or a choice, says the default (and `function.full`)."""
    usual = {key: each.default for key, each in inspect.signature(function).parameters.items()}
    found = dict(arguments)
    for name, default in usual.items():
        value = found[name]
        if name == "seeds":
            found[name] = check_seeds(value)
        elif name == "optimizers":
            found[name] = check_optimizers(value, *((2, np.inf) if len(default) > 1 else (1, 1)))
        elif name == "settings" and isinstance(default, dict):
            check_settings(value)
        elif isinstance(default, int):
            found[name] = whole(name, value, min(1, default))
        elif isinstance(default, tuple) and isinstance(default[0], int):
            require(isinstance(value, (tuple, list, range)), name, value, f"several, as {default}")
            found[name] = tuple(whole(name, each) for each in value)
        elif isinstance(default, tuple):
            known = sorted({*default, *getattr(function, "full", {}).get(name, ())})
            require(isinstance(value, (str, tuple, list)), name, value, f"several, as {default}")
            found[name] = (value,) if isinstance(value, str) else tuple(value)
            require(all(each in known for each in found[name]), name, value,
                    f"some of {', '.join(map(repr, known))}")
    if "lr" in usual:
        found["lr"] = check_rates(found["lr"], found["optimizers"])
    return found


def require(good, name, got, wants):
    if not good:
        raise ValueError(f"{name}: got {got!r}, wants {wants}")


def whole(name, value, least=1):
    """A whole number as an int, 1e3 too; ValueError for another, or one below the least."""
    number = value.item() if isinstance(value, np.generic) else value
    good = isinstance(number, (int, float)) and not isinstance(number, bool)
    require(good and least <= number < 1e9 and number == int(number), name, value,
            f"a whole number >= {least}, below 1e9")
    return int(number)


def check_seeds(seeds):
    """Their number, or the seeds themselves: a tuple."""
    if isinstance(seeds, (list, tuple, range, set, np.ndarray)):
        found = tuple(whole("seeds", seed, 0) for seed in seeds)
        require(found and len(set(found)) == len(found), "seeds", seeds, "one or more, each once")
        return found
    return whole("seeds", seeds)


def check_optimizers(optimizers, least=1, most=np.inf):
    """One class or several as a tuple."""
    found = (optimizers,) if isinstance(optimizers, (type, str)) else optimizers
    try:
        found = tuple(found)
    except TypeError:  # an instance
        found = (optimizers,)
    for each in found:
        require(isinstance(each, type) and hasattr(each, "step"), "optimizers", each,
                "classes with a method step, as optimizers.SGD")
    names = [each.__name__ for each in found]
    require(len(found) >= least, "optimizers", names, f"{least} or more to compare")
    require(len(found) <= most, "optimizers", names, "one: this experiment compares none")
    require(len(set(names)) == len(names), "optimizers", names, "each name once")
    return found


def check_rates(lr, classes):
    """None, or {class's name: rate}."""
    if lr is None:
        return None
    require(isinstance(lr, dict), "lr", lr, "a dict, as dict(SGD=0.02)")
    names, found = [each.__name__ for each in classes], {}
    for name, rate in lr.items():
        number = rate.item() if isinstance(rate, np.generic) else rate
        require(name in names, "lr", name, f"rates of {', '.join(names)}")
        require(isinstance(number, (int, float)) and number is not True and 0 < number < 1e300,
                "lr", rate, "a number > 0")
        found[name] = number
    return found


def check_settings(settings):
    """{name: Setting}, with data of which a batch can be drawn."""
    good = isinstance(settings, dict) and settings and all(
        isinstance(name, str) and isinstance(each, data.Setting)
        for name, each in settings.items())
    require(good, "settings", settings, "a dict {name: Setting}, as data.PAPER_SETTINGS")
    for setting in settings.values():
        require({"n", "d"} <= set(setting.data), "data", setting.data, "n and d, at least")
        try:
            data.sample_prompts(generator(0), 1, **setting.data)  # which says what is wrong
        except TypeError:  # an argument that it does not have
            require(False, "data", setting.data, "arguments of sample_prompts")


def check_run(setting, contestants, seed, steps, every):
    """The arguments of `train`, which keeps what it is asked for."""
    require(isinstance(setting, data.Setting), "setting", setting, "one, as data.SETTING_1")
    require(isinstance(contestants, (tuple, list)) and contestants and all(
        isinstance(each, (tuple, list)) and len(each) == 2 for each in contestants),
            "contestants", contestants, "pairs (class, arguments), as of training.contestants")
    for name, value, least in (("seed", seed, 0), ("steps", steps, 1), ("every", every, 1)):
        require(isinstance(value, (int, np.integer)), name, value, "a whole number")
        whole(name, value, least)
