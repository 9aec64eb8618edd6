"""``numnet train`` and ``numnet sweep``: options in, a recipe out; ``numnet.training`` does the work."""

import argparse
import re
from contextlib import nullcontext
from pathlib import Path

from numnet import checkpoint, parallel
from numnet.cli.arguments import (
    IfSlow,
    add_model_options,
    add_threads,
    choice,
    columns,
    count,
    described,
    model_options,
    nearest,
    number,
    plain,
    print_json,
    require_dataset,
    require_figure,
    say,
    say_notes,
    set_threads,
)
from numnet.data.feed import OPTIONS as AUGMENT
from numnet.errors import NumnetError, tell
from numnet.kernels.augment import BORDERS
from numnet.loading import load_any, require_floats
from numnet.training import budget, recipes, run, state
from numnet.training.loop import DEFAULTS
from numnet.training.optimisers import OPTIMISERS
from numnet.training.schedules import OPTIONS as SCHEDULES

# The recipe's keys as options: (metavar, what --help says). A key that is not here gets an option too.
FLAGS = {
    "epochs": ("E", "epochs; the recipe's warm-up is scaled with them"),
    "batch_size": ("B", "images in a step"),
    "lr": ("LR", "highest learning rate"),
    "optimiser": ("NAME", ", ".join(OPTIMISERS)),
    "schedule": ("NAME", ", ".join(SCHEDULES)),
    "warmup": ("EPOCHS", "epochs in which the learning rate rises"),
    "seed": (
        "S",
        "seed of the weights, the order of images, augmentation, dropout and the validation images",
    ),
    "validation": (
        "N|test",
        "training images to hold back; they choose best.safetensors. test: the test images choose it, "
        "and its test accuracy is no test",
    ),
    "weight_decay": ("D", "weight decay; on weights, not on biases, gamma and beta"),
    "decay_depthwise": ("", "weight decay on depthwise weights too"),
    "label_smoothing": ("P", "label smoothing: the probability that is spread over all classes"),
    "ema": ("M", "decay of the averaged weights, which are evaluated and saved too"),
    "clip_norm": ("N", "clip the gradient to this L2 norm"),
    "quantise": ("", "train the net of --init for eight bits: best.safetensors is then a net of eight bits"),
    "accumulate": ("PARTS", "split each batch into this many parts, to save memory"),
    "scaling": ("NAME", "input scaling: dataset, imagenet, keras, unit"),
    "preset": ("NAME", "how photographs are resized: torchvision, stretch, keras"),
    "class_weights": ("W", "class weights in the loss: balanced, or cat=2,dog=0.5"),
    "progressive": (
        "STAGES",
        "smaller images first: [[0.625,0.5]] is 0.625 of the side in half of the epochs; none: whole ones",
    ),
    "sampling": ("NAME", "shuffled, or balanced: every epoch has the same number of images of each class"),
    "patience": ("E", "end after E epochs without a better result (needs validation images)"),
    "background": ("NAME", "colour behind transparent pixels: white, black, grey"),
    "freeze": ("BLOCK", "do not train this block and those before it"),
    "whiten": ("", "the first convolution whitens patches of the training images, and is not trained"),
    "sync_bn": ("", "with mpiexec: batch norm over the whole batch, not over each rank's part"),
    "exact": ("", "with mpiexec: bit-identical results on 1, 2, 4 and 8 ranks; slow"),
    "checkpoint_every": ("MINUTES", "save within an epoch too, with this many minutes between"),
    "keep_every": ("E", "keep a checkpoint every E epochs: epoch-5.safetensors …"),
    "momentum": ("M", "momentum of sgd, muon and rmsprop"),
    "nesterov": ("", "Nesterov's momentum, for sgd and muon"),
    "ratio": (
        "PART",
        "muon: length of a step in parts of the matrix's own length, divided by the learning rate",
    ),
    "beta_rate": ("FACTOR", "sgd and muon: learning rate of batch norm's beta, in parts of the others'"),
    "rho": ("M", "rmsprop: decay of the mean of squares"),
    "beta1": ("M", "adam: decay of the mean of gradients"),
    "beta2": ("M", "adam: decay of the mean of squares"),
    "epsilon": ("X", "rmsprop and adam: added to the denominator"),
    "style": ("NAME", "rmsprop and adam: the place of epsilon, as in pytorch or tensorflow"),
    "final": ("PART", "fraction of the learning rate at the end (linear, cosine, one_cycle)"),
    "gamma": ("FACTOR", "factor of the schedules step and exponential"),
    "milestones": ("E,E,…", "epochs after which the schedule step multiplies by gamma"),
    "every": ("EPOCHS", "epochs between two factors of the schedule exponential"),
}
NO_FLAG = ("about", "augment")
# May be used with --resume
FREE_TO_RESUME = (
    "resume",
    "from_epoch",
    "epochs",
    "patience",
    "data",
    "memory",
    "dataset",
    "set",
    "json",
    "threads",
    "quiet",
)


# ----------------------------------------------------------------------------------------- train


def train_arguments(parser):
    parser.epilog = "recipes: " + ", ".join(recipes.names())
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="cifar10, shapes, or an image folder")
    hidden = {"default": argparse.SUPPRESS}
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="where CIFAR-10 lies; with --resume also a folder of images that has moved",
        **hidden,
    )
    about = "instead of the data set's own; options override it"
    parser.add_argument("--recipe", metavar="NAME|FILE", help=about, **hidden)
    about = "as many epochs as fit this time on this machine, 90s, 15min, 1.5h; CIFAR-10's recipe is chosen by it, too"
    parser.add_argument("--budget", metavar="TIME", help=about, **hidden)
    parser.add_argument(
        "--out", metavar="RUN_DIR", help="folder for this run (runs/DATASET-NUMBER)", **hidden
    )
    about = "start from this net's weights; another number of classes gets a new last layer"
    parser.add_argument("--init", metavar="CHECKPOINT", help=about, **hidden)
    about = (
        "continue a run that was stopped; the only other options are --epoch (go back), --epochs and --patience "
        "(another end), --data (where the images are now), --memory, --threads, --quiet, --json"
    )
    parser.add_argument("--resume", metavar="RUN_DIR", help=about)
    about = "with --resume: go back to the checkpoint that --keep-every kept after this epoch, and continue from there"
    parser.add_argument("--epoch", type=count(), metavar="E", dest="from_epoch", help=about, **hidden)
    add_threads(parser)
    parser.add_argument("--memory", metavar="SIZE", help="images to keep in memory: 500M, 4G (2G)", **hidden)
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output")
    add_model_options(parser, classes=False)
    parser.add_argument("--model", metavar="M", help="one of those that `numnet models` lists", **hidden)
    group = parser.add_argument_group("the recipe (what is not given is as the recipe says)")
    for key in [*FLAGS, *(key for key in recipes.SETTINGS if key not in FLAGS)]:
        if key in NO_FLAG or key not in recipes.SETTINGS:
            continue
        metavar, about = FLAGS.get(key, ("VALUE", recipes.SETTINGS[key][1]))
        names = ["--" + key.replace("_", "-")]
        if key == "optimiser":
            names.append("--optimizer")
        if recipes.SETTINGS[key] is recipes.SWITCH:
            group.add_argument(*names, action=argparse.BooleanOptionalAction, help=about, **hidden)
        else:
            group.add_argument(*names, dest=key, type=_setting(key), metavar=metavar, help=about, **hidden)
    about = "scale the learning rate linearly with the batch size: the recipe's is for its own batch size"
    group.add_argument("--scale-lr", action="store_true", help=about, **hidden)
    group = parser.add_argument_group("augmentation (part of the recipe)")
    group.add_argument(
        "--crop", type=_pixels, metavar="PIXELS", help="shift each image by up to this many pixels", **hidden
    )
    group.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, help="mirror half of the images", **hidden
    )
    group.add_argument(
        "--cutout", type=_pixels, metavar="SIDE", help="cover a square with this side", **hidden
    )
    about = "what a shifted image shows at its border: zero, or reflect"
    group.add_argument("--border", type=choice(*BORDERS), metavar="NAME", help=about, **hidden)
    for name, what in (
        ("mixup", "blend every image with another one"),
        ("cutmix", "put a part of another image in"),
    ):
        about = f"{what}, and their labels: α of the Beta distribution, 0 to 1"
        group.add_argument(f"--{name}", type=number(least=0, most=1), metavar="ALPHA", help=about, **hidden)
    group.add_argument("--no-augment", action="store_true", help="no augmentation", **hidden)


def _pixels(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of pixels, got {text!r}")
    return int(text)


def _setting(key):
    """The converter of a recipe's key: what a recipe file would hold, checked as a recipe is."""
    fits, expected = recipes.SETTINGS[key]

    def convert(text):
        value = _value(text)
        if key == "progressive" and isinstance(value, str):
            value = plain(value)
        if recipes.SETTINGS[key] is recipes.EPOCH_LIST:
            value = [_value(part) for part in text.strip("[]").split(",")]
        if key == "class_weights" and "=" in text:
            pairs = [part.rpartition("=") for part in text.split(",")]
            value = {name.strip(): _value(weight) for name, _, weight in pairs}
        if not fits(value):
            words = expected.replace(" or null", ", or none")
            close = nearest(text, re.findall(r"\w+", expected)) if expected.startswith("one of") else ""
            raise argparse.ArgumentTypeError(f"expected {words}, got {text!r}{close}")
        return value

    return convert


def _value(text):
    """A number, None, or the text itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None if text.lower() in ("none", "null") else text


def train(arguments):
    with parallel.team() as team:
        set_threads(arguments.threads)
        if arguments.resume is not None:
            _resume(arguments, team)
        else:
            _start(arguments, team)


def _start(arguments, team):
    if arguments.dataset is None:
        raise NumnetError(
            "numnet train: expected a data set (cifar10, shapes or an image folder), or --resume RUN_DIR"
        )
    given = vars(arguments)
    if "from_epoch" in given:
        raise NumnetError(
            "--epoch: goes back in an earlier run; needs --resume RUN_DIR as well, or did you mean --epochs?"
        )
    flags, recipe = _flags(arguments), given.get("recipe")
    # What can be known to be wrong is said before the data is read, or even downloaded.
    require_dataset(arguments.dataset, given.get("data"))
    init = given.get("init")
    start = None if init is None else load_any(init)
    if start is not None:
        require_floats(start, "train --init")
    if start is not None and not arguments.quiet:
        say_notes(start)
    if "budget" in given:
        recipe, flags = _within(arguments, given, recipe, flags, start, team)
    if given.get("scale_lr"):  # from the recipe that a budget has chosen
        flags["lr"] = _scaled_lr(
            run.plan(arguments.dataset, recipe, _without(flags, "batch_size"), start), flags
        )
    plan = run.plan(arguments.dataset, recipe, flags, start)
    net = described(**plan["model"])
    if plan.get("freeze") is not None:
        net.freeze(plan["freeze"])
    out = given.get("out")
    if out is not None:
        team.lead(lambda: state.require_free(out))
    reading = {
        key: given[name] for key, name in (("data_dir", "data"), ("memory", "memory")) if name in given
    }
    keywords = {"recipe": recipe, "flags": flags, "init": start, "out": out, "progress": not arguments.quiet}
    with _if_slow(f"reading {arguments.dataset} …", team) as callbacks:
        result = run.train(arguments.dataset, callbacks=callbacks, team=team, **keywords, **reading)
    _report(arguments, result, team)


def _within(arguments, given, recipe, flags, start, team):
    """The recipe and the flags with the epochs that fit --budget, chosen by a timing."""
    limit = budget.seconds(given["budget"])
    if "epochs" in flags:
        raise NumnetError("--budget: chooses the number of epochs; expected no --epochs")
    if team.size > 1:
        raise NumnetError("--budget: times the steps of one process; expected no mpiexec, or --epochs")
    reading = {
        key: given[name] for key, name in (("data_dir", "data"), ("memory", "memory")) if name in given
    }
    recipe, epochs, line = budget.choose(
        arguments.dataset, limit, recipe=recipe, flags=flags, start=start, progress=not arguments.quiet,
        reading=reading,
    )  # fmt: skip
    if not arguments.quiet:
        tell(f"budget of {given['budget']}: {line}")
    return recipe, {**flags, "epochs": epochs}


def _scaled_lr(plan, flags) -> float:
    """Linear scaling (Goyal et al. 2017): the learning rate of ``plan`` for another batch size."""
    batch = plan.get("batch_size", DEFAULTS["batch_size"])
    optimiser = OPTIMISERS[plan.get("optimiser", DEFAULTS["optimiser"])]
    lr = plan.get("lr") or optimiser.DEFAULTS["lr"]
    return lr * flags.get("batch_size", batch) / batch


def _without(flags, key) -> dict:
    return {name: value for name, value in flags.items() if name != key}


def _if_slow(text, team):
    """A context whose value are the callbacks of a training: on one rank they say what takes long."""
    return _UntilStart(text) if team.leads else nullcontext([])


class _UntilStart(IfSlow):
    def __enter__(self):
        return [super().__enter__()]


def _flags(arguments) -> dict:
    """The options as a recipe."""
    given = vars(arguments)
    flags = {key: given[key] for key in recipes.SETTINGS if key in given}
    model = model_options(arguments)
    if "model" in given:
        model["model"] = given["model"]
    if model:
        flags["model"] = model
    augment = {key: given[key] for key in AUGMENT if key in given}
    if given.get("no_augment"):
        if augment:
            raise NumnetError(f"--no-augment: cannot be used with --{next(iter(augment))}")
        flags["augment"] = None
    elif augment:
        flags["augment"] = augment
    return flags


def _resume(arguments, team):
    for name, value in vars(arguments).items():
        if name not in FREE_TO_RESUME or (name in ("dataset", "set") and value):
            what = f"data set {value!r}" if name == "dataset" else "--" + name.replace("_", "-")
            raise NumnetError(f"--resume continues the run with its own settings: expected no {what}")
    folder = team.lead(lambda: checkpoint.find(arguments.resume, "last").parent)
    if Path(arguments.resume).is_file() and Path(arguments.resume).name != "last.safetensors":
        raise NumnetError(
            f"--resume: expected a run directory, got the file {arguments.resume}; --epoch E goes back to a checkpoint "
            "that --keep-every has kept"
        )
    given = vars(arguments)
    epoch, changes = (
        given.get("from_epoch"),
        {key: given[key] for key in ("epochs", "patience") if key in given},
    )
    finished = epoch is None and not changes and team.lead(lambda: (folder / "result.json").exists())
    with _if_slow("reading the data …", team) as callbacks:
        keywords = {"progress": not arguments.quiet, "callbacks": callbacks, "team": team}
        keywords |= {key: given[key] for key in ("data", "memory") if key in given}
        result = run.resume(arguments.resume, epoch=epoch, changes=changes, **keywords)
    if finished and team.leads:
        say(f"{folder}: this run is finished; nothing is left to do")
    _report(arguments, result, team, draw=not finished)


def _report(arguments, result, team, draw=True):
    """The learning curves into the run directory, the result to standard output."""
    if not team.leads:
        return
    if team.size > 1:
        result["parallel"] = team.report()
    folder = Path(result["checkpoint"]).parent
    if draw:
        from numnet import plotting

        try:
            plotting.learning_curves(result["history"], folder / "curves.png")
        except (NumnetError, OSError, MemoryError) as error:  # the training is done and saved all the same
            reason = getattr(error, "strerror", None) or error
            tell(f"warning: {folder / 'curves.png'} was not drawn ({reason})")
    result = {key: value for key, value in result.items() if key != "history"}
    if arguments.json:
        print_json(result)
        return
    trained = f"{result['epochs']} epochs in {result['train_seconds']:.1f} s"
    if result["images_per_second"] is not None:
        trained += f", {result['images_per_second']:,.0f} images/s"
    if result.get("stopped_early"):
        trained += ", ended by its patience"
    lines = [("test accuracy", _percent(result["test_accuracy"]))]
    if result.get("chosen_by_test"):
        best = f", after epoch {result['best_epoch']}, which these same images chose: no test"
        lines = [("test accuracy", lines[0][1] + best)]
    elif result["validation_accuracy"] is not None:
        best = f"{_percent(result['validation_accuracy'])}, the best, after epoch {result['best_epoch']}"
        lines.append(("validation accuracy", best))
    worst = result.get("test_worst")
    if worst is not None:
        least = f"{worst['label']}: {_percent(worst['accuracy'])} of {worst['images']:,} test images"
        lines.append(("worst class", least))
    lines += [("trained", trained), ("checkpoint", result["checkpoint"])]
    if team.size > 1:
        lines.append(("ranks", f"{team.size} of {team.threads} threads"))
    print(columns(lines))


def _percent(part) -> str:
    return "–" if part is None else f"{100 * part:.2f} %"


# ----------------------------------------------------------------------------------------- sweep


def sweep_arguments(parser):
    parser.add_argument(
        "file", metavar="FILE", help="JSON: a list of runs; see python -m pydoc numnet.training.sweep"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the runs and their table (FILE without its ending)"
    )
    about = "train nothing: the table of the runs that are finished, from their logs"
    parser.add_argument("--logged", action="store_true", help=about)
    about = "train nothing: measure a training step of every run's net, for the table and the figure"
    parser.add_argument("--time", action="store_true", help=about)
    parser.add_argument("--plot", metavar="FILE", help="the figure (DIR/table.png): .png, .pdf, .svg")
    add_threads(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    parser.add_argument("--json", action="store_true", help="the table as JSON")


def sweep(arguments):
    if parallel.launch.launched():
        raise NumnetError("numnet sweep runs in one process; expected no mpiexec before it")
    from numnet import plotting
    from numnet.training import results
    from numnet.training import sweep as sweeps

    set_threads(arguments.threads)
    plan = sweeps.read(arguments.file, arguments.out)
    if arguments.plot:
        require_figure(arguments.plot, "--plot")
    if arguments.time:
        times = sweeps.measure(plan, say=(lambda text: None) if arguments.quiet else say)
        if not arguments.logged:
            if arguments.json:
                print_json(times)
            else:
                print(columns([(name, f"{value:.0f} µs an image") for name, value in times.items()]))
            return
    if arguments.logged:
        rows = results.collect(plan, say=say)
    else:
        for entry in plan.entries:
            require_dataset(entry.dataset, entry.data)
        rows = sweeps.train(
            plan, progress=not arguments.quiet, say=(lambda text: None) if arguments.quiet else say
        )
    if arguments.json:
        print_json(rows)
    else:
        print(results.markdown(rows), end="")
    if any(row["test_accuracy"] is not None for row in rows):
        minutes = not arguments.logged  # those of kept logs are of other machines, or of a busy one
        plotting.sweep(rows, arguments.plot or plan.folder / "table.png", minutes=minutes)
