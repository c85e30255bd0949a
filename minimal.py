"""Adam against SGD on linear attention, in Setting 1 (README's claim C1): from data to losses with
numpy alone.

A prompt Z has n context columns (x, y), together C, and a query column q = (x, 0). Here y = <w, x>,
with another w in each prompt; the query's y is the target. A layer of linear attention has the
scores Z^T Q Z and the values P Z M, where M leaves the query out:

    Z' = Z + (1/n) P Z M Z^T Q Z = A Z,  A = I + P G Q,  G = (1/n) Z M Z^T = (1/n) C C^T.

A layer multiplies every column by A, so q' = A q and G' = A G A^T: of a prompt, G and q are all
that is needed. Layers subtract their guess from the label, so the prediction is minus the last
entry of the last q. dX is dLoss/dX.
"""

import numpy as np

L, d, n, batch = 3, 5, 20, 1000  # layers, entries of x, context columns, prompts in a batch
D = d + 1
I = np.eye(D)[:, :, None]  # (D, D, 1): prompts are the last axis, along which numpy's loop runs


def mul(*factors):
    """The matrix product, prompt by prompt: (., ., batch) each, or (., .), the same for all."""
    product, *others = factors
    for factor in others:
        product = np.einsum("ij...,jk...->ik...", product, factor)
    return product


def T(X):
    return X.swapaxes(0, 1)  # X^T, prompt by prompt


def draw_prompts(rng):
    """A fresh batch, drawn as in data.py: G (D, D, batch), q (D, 1, batch), target (batch,)."""
    x = rng.standard_normal((batch, d, n + 1))
    w = rng.standard_normal((batch, 1, d))
    Z = np.empty((D, n + 1, batch))
    Z[:d] = x.transpose(1, 2, 0)
    Z[d] = (w @ x)[:, 0].T  # y = <w, x>
    C, q, target = Z[:, :n], Z[:, n:].copy(), Z[d, n].copy()
    q[d] = 0
    return mul(C, T(C)) / n, q, target


def loss_and_grad(params, G, q, target):
    """Mean squared error, and its gradient; params (L, 2, D, D) are P and Q of every layer."""
    kept = []
    for P, Q in params:
        A = I + mul(P, G, Q)
        kept.append((G, q, A))
        q, G = mul(A, q), mul(A, G, T(A))
    error = -q[d, 0] - target

    grad, dq, dG = np.zeros_like(params), np.zeros_like(q), np.zeros_like(G)
    dq[d] = -2 * error / batch
    for l in reversed(range(L)):  # dq and dG are those of this layer's q' and G'
        (P, Q), (G, q, A) = params[l], kept[l]
        dA = mul(dq, T(q)) + mul(dG + T(dG), A, G)  # q' = A q, G' = A G A^T (A twice; G = G^T)
        grad[l] = mul(dA, T(Q), G).sum(axis=2), mul(G, T(P), dA).sum(axis=2)  # A = I + P G Q
        if l > 0:  # now those of its q and G; of the first layer's nobody asks for them
            dq, dG = mul(T(A), dq), mul(T(A), dG, A) + mul(T(P), dA, T(Q))
    grad[:, :, d] = grad[:, :, :, d] = 0  # trained are the d x d blocks that act on x
    return (error**2).mean(), grad


class SGD:
    def __init__(self, lr):
        self.lr, self.velocity = lr, 0

    def step(self, params, grad):
        self.velocity = 0.9 * self.velocity + grad
        return params - self.lr * self.velocity


class Adam:
    def __init__(self, lr):
        self.lr, self.m, self.v, self.t = lr, 0, 0, 0

    def step(self, params, grad):
        self.t += 1
        beta1, beta2 = 0.9, 0.9  # beta2 is the paper's; the usual one is 0.999
        self.m = beta1 * self.m + (1 - beta1) * grad
        self.v = beta2 * self.v + (1 - beta2) * grad**2
        m, v = self.m / (1 - beta1**self.t), self.v / (1 - beta2**self.t)  # both began at 0
        return params - self.lr * m / (np.sqrt(v) + 1e-8)


def train(seed, steps):
    """Losses (2, steps) of SGD and Adam, from the same weights and on the same fresh batches."""
    weight_rng, batch_rng = (np.random.Generator(np.random.SFC64(stream))
                             for stream in np.random.SeedSequence(seed).spawn(2))
    start = np.zeros((L, 2, D, D))
    start[:, :, :d, :d] = 0.05 * weight_rng.standard_normal((L, 2, d, d))
    start[:, 0, d, d] = 1  # P's corner: what a layer adds to the label is not scaled; it stays 1
    rules, params = (SGD(lr=0.02), Adam(lr=0.02)), [start, start]  # the paper's; try SGD(0.2)
    loss = np.zeros((2, steps))
    for t in range(steps):
        prompts = draw_prompts(batch_rng)
        for i, rule in enumerate(rules):
            loss[i, t], grad = loss_and_grad(params[i], *prompts)
            grad *= min(1, 1 / np.linalg.norm(grad))  # clipped: its norm is at most 1
            params[i] = rule.step(params[i], grad)
    return loss


if __name__ == "__main__":
    import matplotlib.pyplot as plt

    steps, ratios = 667, []  # a first look, as `python experiments.py adam_vs_sgd` takes it
    for seed in range(6):
        loss = train(seed, steps)
        sgd, adam = np.median(loss[:, -(steps // 10) :], axis=1)  # over the last tenth
        ratios.append(sgd / adam)
        print(f"seed {seed}: final loss SGD {sgd:.3g}, Adam {adam:.3g}, ratio {sgd / adam:.3g}")
        plt.semilogy(loss[0], "--", color="#E69F00", lw=0.7)
        plt.semilogy(loss[1], "-", color="#0072B2", lw=0.7)
    print(f"median ratio {np.median(ratios):.3g}")
    plt.legend(["SGD", "Adam"], title="six seeds each")  # the first two curves
    plt.gca().set(xlabel="iteration", ylabel="training loss")
    plt.savefig("minimal.png")
    print("minimal.png")

# What is not here, and where it is:
# - attention by its definition, which softmax and ReLU need; Hessians (linattn.py)
# - other data and settings (data.py), other optimizers (optimizers.py)
# - seatbelts: checks of the arguments, runs that diverge (`train` in training.py)
# - what is measured along a run, the other claims (training.py, experiments.py)
# - rates that were searched for rather than published (`learning_rates` in experiments.py)
# - the same in less time: all cores, results that are kept (runs.py)
# - what six ratios say about other seeds: a test, with a bound fixed beforehand (verdicts.py)
