"""A recipe of `numnet train cifar10` carried out by PyTorch: the same net, start, batches and schedule; accuracy and time.

    python tests/long/same_recipe.py --data DIR                      the recipe of CIFAR-10 (an hour)
    python tests/long/same_recipe.py --data DIR --recipe FILE --seed 1 --epochs 8 --threads 2

PyTorch gets numnet's starting weights and the very batches that ``numnet.data.batches`` makes for numnet, one for one,
and computes everything else itself: forward, backward (eager, channels_last), loss, SGD or muon. What may differ is the order
of sums, and which features V1's dropout (0.001) drops. A line an epoch, then one JSON line: test and validation accuracy
of the last epoch's net, and seconds from the first step on, which is what ``numnet train --json`` prints of its own run.
"""

import argparse
import json
import time

import numpy as np
import torch

import numnet
from numnet.bench.mirror import mirror
from numnet.data import batches
from numnet.training import run
from numnet.training.loop import Run
from numnet.training.optimisers import Muon as numnet_muon
from numnet.training.progressive import shrunk


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="where CIFAR-10 lies")
    parser.add_argument("--recipe", help="name or file; without it the data set's own")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


class Muon(torch.optim.SGD):
    """numnet's muon (see ``numnet/kernels/muon.py``) for the standard and pointwise convolutions, SGD for the rest."""

    def __init__(self, groups, matrices, ratio, **options):
        super().__init__(groups, **options)
        self.ratio, self.velocity = ratio, {w: torch.zeros_like(w) for w in matrices}

    @torch.no_grad()
    def step(self):
        group = self.param_groups[0]
        for w, v in self.velocity.items():
            v.mul_(group["momentum"]).add_(w.grad)
            u = w.grad + group["momentum"] * v if group["nesterov"] else v
            x = u.flatten(1) / u.norm()
            x = x if x.shape[0] <= x.shape[1] else x.T
            for _ in range(5):
                a = x @ x.T
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
            x = x if x.shape == u.flatten(1).shape else x.T
            length = len(w) ** 0.5
            w -= self.ratio * group["lr"] * length * (x / x.norm()).reshape(w.shape)
            w *= length / w.norm()
            w.grad = None  # SGD passes over it
        super().step()


def optimiser(model, net, settings):
    """torch.optim.SGD, or muon, with weight decay on weights alone, as numnet's recipes have it."""
    if settings["optimiser"] not in ("sgd", "muon") or not settings["decay_depthwise"]:
        raise SystemExit("same_recipe.py: expected a recipe with sgd or muon and weight decay on all weights")
    learned = [p for p in model.parameters() if p.requires_grad]
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d) and m.bias.requires_grad]
    betas = {id(m.bias) for m in norms}
    groups = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": settings["weight_decay"], "factor": 1},
        {"params": [p for p in learned if p.ndim <= 1 and id(p) not in betas], "factor": 1},
        {"params": [m.bias for m in norms], "factor": settings.get("beta_rate") or 1},
    ]
    options = dict(lr=1, momentum=settings["momentum"], nesterov=settings["nesterov"], weight_decay=0)
    if settings["optimiser"] == "sgd":
        return torch.optim.SGD(groups, **options)
    convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.groups == 1]
    if len(convs) != len(net.matrices()):
        raise SystemExit("same_recipe.py: expected batch norm after every convolution of a recipe with muon")
    dense = [m.weight for m in convs if m.weight.requires_grad]
    return Muon(groups, dense, settings.get("ratio") or numnet_muon.DEFAULTS["ratio"], **options)


def models(net, sides):
    """Side of the images -> module. All have the same parameters; what padding "same" adds depends on the side."""
    own, made = net.input_shape[0], {}
    for side in dict.fromkeys([own, *sides]):
        if side != net.input_shape[0]:
            net.resize(side)
        made[side] = mirror(net).to(memory_format=torch.channels_last)
        for ours, theirs in zip(with_tensors(made[side]), with_tensors(made[own])):
            for name, value in [
                *theirs.named_parameters(recurse=False),
                *theirs.named_buffers(recurse=False),
            ]:
                setattr(ours, name, value)
    if net.input_shape[0] != own:
        net.resize(own)
    for module in made.values():
        learn(module, net)
    return made


def learn(module, net):
    """Training mode, but for the layers that are frozen: these run as in inference, and have no gradients."""
    module.train()
    for layer in list(module)[: net.frozen]:
        layer.eval().requires_grad_(False)


def with_tensors(module):
    return [part for part in module.modules() if next(part.parameters(recurse=False), None) is not None]


def tensor(x):
    return torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2)


def accuracy(model, net, split, scaling):
    if split is None or not len(split):
        return None
    model.eval()
    right = 0
    with torch.inference_mode():
        for x, labels in batches(split, batch_size=256, scaling=scaling, shuffle=False):
            right += int((model(tensor(x)).argmax(1).numpy() == labels).sum())
    learn(model, net)
    return right / len(split)


def main():
    given = arguments()
    torch.set_num_threads(given.threads)
    flags = {"seed": given.seed} | ({} if given.epochs is None else {"epochs": given.epochs})
    recipe = run.plan("cifar10", given.recipe, flags)
    settings = {key: value for key, value in recipe.items() if key not in ("model", "validation", "preset")}
    options = dict(recipe["model"])
    data = numnet.data.load(
        "cifar10", data_dir=given.data, validation=recipe["validation"], seed=recipe["seed"]
    )
    net = numnet.build(options.pop("model"), classes=len(data.classes), **options)
    plan = Run(net, data, settings, progress=False)  # for its rates, sides and images: it never trains
    model = models(net, plan.sides)
    stepper = optimiser(model[plan.side], net, plan.settings)
    steps, began = 0, time.perf_counter()
    for epoch, side in enumerate(plan.sides):
        right = images = 0
        stream = batches(
            plan.sized.at(side), batch_size=plan.settings["batch_size"], seed=plan.settings["seed"], epoch=epoch,
            augment=shrunk(plan.settings["augment"], side / plan.side), scaling=plan.scaling,
        )  # fmt: skip
        for x, labels in stream:
            for group in stepper.param_groups:
                group["lr"] = group["factor"] * plan.rate(steps)
            logits, labels = model[side](tensor(x)), torch.from_numpy(labels)
            loss = torch.nn.functional.cross_entropy(
                logits, labels, label_smoothing=plan.settings["label_smoothing"]
            )
            stepper.zero_grad(set_to_none=True)
            loss.backward()
            stepper.step()
            steps, images = steps + 1, images + len(labels)
            right += int((logits.argmax(1) == labels).sum())
        validation = accuracy(model[plan.side], net, data.validation, plan.scaling)
        seconds = time.perf_counter() - began
        held = "" if validation is None else f"validation {validation:.4f}; "
        print(f"epoch {epoch + 1}/{len(plan.sides)}, {side}×{side}: training {right / images:.4f}; {held}{seconds:.0f} s",
              flush=True)  # fmt: skip
    result = {
        "test_accuracy": accuracy(model[plan.side], net, data.test, plan.scaling),
        "validation_accuracy": validation,
        "epochs": len(plan.sides),
        "train_seconds": seconds,
        "seed": given.seed,
        "threads": given.threads,
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
