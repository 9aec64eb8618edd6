"""How good the net of a run is: on the validation images after each epoch, on the test images at the end.

Where a run has averaged weights, these are judged; where it trains for eight bits, the net in eight bits.
"""

import math
from contextlib import nullcontext

from numnet import data as datasets
from numnet.loading import load
from numnet.training import rehearsal, state, trouble
from numnet.training.evaluate import evaluate, worst_class

EVALUATION_BATCH = 256  # at most: inference is not faster with more, only larger


def validation(run) -> dict:
    """Loss and accuracy on the validation images, of the net and of the averaged one; None without such images."""
    split, values = run.data.validation, {"validation_loss": None, "validation_accuracy": None}
    nets = [("", nullcontext())]
    if run.average is not None:
        nets.append(("ema_", run.average))
    for prefix, weights in nets:
        if split is None or not len(split.labels):
            continue
        with weights:
            result = _evaluate(run, split)
            if not math.isfinite(result["loss"]):
                where = trouble.of_inference(run.net, _batches(run, split))
                trouble.diverged(run, f"the validation loss is {result['loss']}", where, over=True)
        values[f"{prefix}validation_loss"] = result["loss"]
        values[f"{prefix}validation_accuracy"] = result["accuracy"]
    return values


def note_best(run, record) -> None:
    """Keep this epoch's net if it is the best so far: of equal accuracies the smaller loss."""
    prefix = "" if run.average is None else "ema_"
    accuracy, loss = (record.get(f"{prefix}validation_{key}") for key in ("accuracy", "loss"))
    if accuracy is not None and run.best is not None:
        if (accuracy, -loss) <= (run.best["accuracy"], -run.best["loss"]):
            return
    run.best = {"epoch": record["epoch"], "accuracy": accuracy, "loss": loss}
    if run.writes:
        with run.average or nullcontext():
            state.save_net(run, state.BEST)


def result(run) -> dict:
    """What result.json says when all is done: the best net on the test images, and what the training took."""
    test = _test(run)
    return {
        "test_accuracy": test["accuracy"],
        "test_top5": test["top5"],
        "test_loss": test["loss"],
        "test_macro": test.get("macro"),
        "test_worst": _worst(run, test),
        "validation_accuracy": run.best["accuracy"],
        "chosen_by_test": run.data.validation is not None and run.data.validation is run.data.test,
        "best_epoch": run.best["epoch"],
        "epochs": run.epoch,
        "stopped_early": run.epoch < run.settings["epochs"] and run.out_of_patience(),
        "train_seconds": run.seconds,
        "images_per_second": _speed(run),
        "checkpoint": str(run.out / state.BEST),
    }


def _speed(run) -> float | None:
    """Images a second of all epochs, or of the last one where a process's first step is all that they had."""
    if run.busy["images"]:
        return run.busy["images"] / run.busy["seconds"]
    return run.history[-1]["images_per_second"] if run.history else None


def _test(run) -> dict:
    """``evaluate`` of the best net on the test images; without test images its figures are None."""
    if run.data.test is None or not len(run.data.test.labels):
        return {"accuracy": None, "top5": None, "loss": None}
    if run.net.fake is not None:
        return _evaluate(run, run.data.test, load(run.out / state.BEST))
    with state.weights_of_best(run):
        return _evaluate(run, run.data.test)


def _worst(run, test):
    """The class whose test images are least often right, or None without test images."""
    if "confusion" not in test:
        return None
    worst = worst_class(test)
    label = str(worst) if worst >= len(run.class_names) else run.class_names[worst]
    images = sum(test["confusion"][worst])
    return {"class": worst, "label": label, "images": images, "accuracy": test["per_class"][worst]}


def _evaluate(run, split, net=None) -> dict:
    """Loss, accuracy and more of ``net``; None: of the one in training, put into eight bits if it is trained for them."""
    batch_size = min(run.settings["batch_size"], EVALUATION_BATCH)
    if run.net.fake is not None:
        net = net or run.net.fake.whole()
    elif not run.evaluated:
        rehearsal.compile_validation(run)
        run.evaluated = True
    return evaluate(net or run.net, split, run.scaling, batch_size=batch_size, team=run.team)


def _batches(run, split):
    return datasets.batches(
        split, channels=run.net.input_shape[2], batch_size=EVALUATION_BATCH, scaling=run.scaling,
        shuffle=False, dtype=run.net.dtype,
    )  # fmt: skip
