"""One small run of every experiment, shared by the tests that look at its results."""

import os
from concurrent.futures import Executor, Future
from unittest.mock import patch

import pytest

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: small matrices gain from no more

import commands
import data
import experiments
import questions
import robust
import runs

TINY = dict(seeds=2, steps=4, draws=5, batches=1, pooled=(2, 2), others=4, lengths=(4,),
            depths=(2,), settings={"Setting 3": data.SETTING_3}, conditions=("L = 2",))


class Here(Executor):
    """Does the work at once, in this process, so that it sees what a test has changed."""

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def few_prompts(rng, batch=1000, *others, **options):
    return sample_prompts(rng, min(batch, 20), *others, **options)


sample_prompts = data.sample_prompts


@pytest.fixture(scope="session")
def everything(tmp_path_factory):
    """The folder with what all experiments leave: two seeds, four steps, batches of 20 prompts; of
    the paper's settings the third, of the four depths two; and the figures of C1, C6 and C9."""
    out = tmp_path_factory.mktemp("everything")
    with patch.object(runs, "executor", Here()), patch.object(runs, "folder", out / "runs"), \
            patch.object(data, "sample_prompts", few_prompts), \
            patch.object(experiments, "DEEP", data.DEEP[:2]), \
            patch.object(questions, "RATES_BEYOND", questions.RATES_BEYOND[:2]), \
            patch.object(robust, "DEEP", data.DEEP[:2]):
        for level, functions in commands.NAMES.items():
            for name, function in functions.items():
                usual = commands.defaults(function)
                tiny = {key: value for key, value in TINY.items()
                        if type(value) is type(usual.get(key))}
                commands.run(name, level, out, usual | tiny)
    for name in ("adam_vs_sgd", "softmax_vs_linear", "depth"):
        commands.save_figures(name, "published", out)
    return out
