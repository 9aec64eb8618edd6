"""The command line where nothing is computed: usage, summary, cost, exit codes."""

import configparser
import csv
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_tools import numnet, start, works

import numnet as library
from numnet.cli import commands, nets
from numnet.cli.arguments import IfSlow, columns, print_json
from numnet.training.optimisers import OPTIMISERS
from numnet.training.schedules import OPTIONS as SCHEDULES


def test_help_names_every_command():
    out = works("--help")
    assert works() == out
    for name, command in commands.COMMANDS.items():
        assert f"  {name} " in out and command.about in out


def test_help_of_train_names_every_optimiser_and_schedule():
    out = " ".join(works("train", "--help").split())
    assert ", ".join(OPTIMISERS) in out and "muon" in out and ", ".join(SCHEDULES) in out


def test_the_page_of_the_design_says_why_each_package_is_needed():
    root = Path(library.__file__).parent.parent
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    needed = re.findall(r"^(\w+)", setup["options"]["install_requires"], re.MULTILINE)
    page = (root / "docs" / "design.md").read_text("utf-8")
    assert len(needed) >= 8 and [name for name in needed if f"\n| {name} | " not in page] == []


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_help_of_a_command(name):
    out = works(name, "--help")
    assert out.startswith(f"usage: numnet {name}") and "--help" in out
    assert works(name, "--nonsense", "-h") == out, "help is given whatever else is asked for"


def test_version():
    assert works("--version") == f"numnet {library.__version__}\n"


def test_as_a_process():
    """The entry point, without warnings, and one line for a mistake."""
    good, bad = start("models"), start("summary", "mobilnet_v1")
    out, err = good.communicate(timeout=60)
    assert good.returncode == 0 and err == "" and out.startswith("mobilenet_v1 ")
    out, err = bad.communicate(timeout=60)
    assert bad.returncode == 2 and out == "" and err.startswith("numnet: error: ") and err.count("\n") == 1


def test_light_commands_load_no_heavy_packages():
    script = (
        "import sys\nfrom numnet.cli import main\n"
        "for command in (['models'], ['summary', 'mobilenet_v1'], ['cost', 'mobilenet_v1', '--csv'], ['--help']):\n"
        "    assert main(command) == 0\n"
        "heavy = [m for m in ('matplotlib', 'tqdm', 'PIL', 'pooch', 'safetensors', 'torch') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------- models, summary


def test_models():
    lines = works("models").splitlines()
    assert [line.split()[0] for line in lines] == library.models()
    assert "4.23 M parameters" in lines[0] and "569 M MACs" in lines[0] and "Howard et al. 2017" in lines[0]
    facts = json.loads(works("models", "--json"))
    assert [row["name"] for row in facts] == library.models()
    assert facts[0]["params"] == 4_231_976 and facts[0]["macs"] == 568_740_352


def test_summary():
    """The published counts of MobileNetV1 (Keras Applications)."""
    facts = json.loads(works("summary", "mobilenet_v1", "--json"))
    assert {"total_params", "trainable_params", "non_trainable_params", "macs", "layers"} <= set(facts)
    totals = [facts[key] for key in ("total_params", "trainable_params", "non_trainable_params", "macs")]
    assert totals == [4_253_864, 4_231_976, 21_888, 568_740_352]
    assert {"name", "type", "output_shape", "params", "macs"} == set(facts["layers"][0])
    assert sum(layer["params"] for layer in facts["layers"]) == 4_253_864
    assert sum(layer["macs"] for layer in facts["layers"]) == 568_740_352
    assert facts["layers"][0]["output_shape"] == [112, 112, 32]
    text = works("summary", "mobilenet_v1")
    assert "4,253,864" in text and "4,231,976" in text and "21,888" in text and "568,740,352" in text


@pytest.mark.parametrize(
    "options, keywords",
    [
        (["--width", "0.5", "--resolution", "160"], {"width": 0.5, "resolution": 160}),
        (["--classes", "10", "--strides", "cifar"], {"classes": 10, "strides": "cifar"}),
        (["--variant=torch", "--padding", "symmetric"], {"variant": "torch", "padding": "symmetric"}),
        (["--set", "separable=false", "--set", "bn-eps=1e-5"], {"separable": False, "bn_eps": 1e-5}),
        (["--set", "activation=hswish", "--set", "shallow=True"], {"activation": "hswish", "shallow": True}),
        (["--dropout", "0", "--set", "dropout_unused=1"], None),
    ],
)
def test_options_are_keywords_of_build(options, keywords):
    code, out, err = numnet("summary", "--json", *options, "mobilenet_v1")
    if keywords is None:
        assert code == 2 and "no option 'dropout_unused'" in err
        return
    net = library.describe("mobilenet_v1", **keywords)
    facts = json.loads(out)
    assert facts["macs"] == net.cost().macs and facts["trainable_params"] == net.cost().params
    assert facts["input_shape"] == list(net.input_shape)


# ------------------------------------------------------------------------------------------- cost


def test_cost_of_one_net():
    facts = json.loads(works("cost", "mobilenet_v1", "--json"))
    assert facts["model"] == "mobilenet_v1" and facts["macs"] == 568_740_352 and facts["params"] == 4_231_976
    types = {row["type"]: row for row in facts["types"]}
    assert types["pointwise"]["layers"] == types["depthwise"]["layers"] == 13
    assert facts == library.cost.report(library.describe("mobilenet_v1"))
    for key in ("macs", "dx_macs", "dw_macs", "params", "activation_bytes", "bytes_moved"):
        of_layers = sum(layer[key] for layer in facts["layers"])
        assert facts[key] == of_layers == sum(row[key] for row in facts["types"])
    # Table 2 of Howard et al. 2017: 1x1 convolutions are 94.86 % of the multiply-adds and 74.59 % of the parameters.
    assert types["pointwise"]["macs"] / facts["macs"] == pytest.approx(0.9486, abs=5e-4)
    assert types["pointwise"]["params"] / facts["params"] == pytest.approx(0.7459, abs=5e-3)
    text = works("cost", "mobilenet_v1")
    assert (
        "568,740,352" in text and "block13.pointwise" in text and "74.2" in text and "fvcore prints" in text
    )
    many = json.loads(works("cost", "mobilenet_v1", "--json", "--batch-size", 8))
    assert many["macs"] == 8 * facts["macs"] and many["params"] == facts["params"] and many["batch_size"] == 8


def test_cost_predicts_a_steps_time_from_the_measured_peak(monkeypatch):
    """Three times the forward MACs (forward, dx, dw), two FLOP each, at half the peak."""
    from numnet.bench import machine

    monkeypatch.setattr(machine, "peak_flops", lambda threads: 20e9)
    found = json.loads(works("cost", "mobilenet_v1", "--batch-size", 4, "--time", "--json"))
    flops = 3 * 2 * 4 * 568_740_352
    assert found["time"]["training_flops"] == flops
    assert found["time"]["training_step_seconds"] == pytest.approx(flops / 10e9)
    text = works("cost", "mobilenet_v1", "--batch-size", 4, "--time")
    assert "a training step 1,365.0 ms" in text and "half of the 20 GFLOP/s measured here" in text


def test_the_peak_that_the_prediction_stands_on_is_measured():
    found = json.loads(works("cost", "mobilenet_v1", "--width", 0.25, "--time", "--json"))
    assert found["time"]["peak_flops"] > 1e8 and found["time"]["threads"] >= 1


def test_cost_side_by_side():
    facts = json.loads(works("cost", "mobilenet_v1", "--json", "mobilenet_v1", "--width", "0.5"))
    assert [net["model"] for net in facts] == ["mobilenet_v1", "mobilenet_v1"]
    text = works("cost", "mobilenet_v1", "mobilenet_v2")
    assert "568,740,352" in text and "300,774,272" in text and "block1.depthwise" not in text
    assert "most memory, MiB" in text and text.endswith("forward reads and writes\n")


def test_cost_as_csv():
    rows = list(csv.DictReader(io.StringIO(works("cost", "mobilenet_v1", "mobilenet_v2", "--csv"))))
    assert {row["model"] for row in rows} == {"mobilenet_v1", "mobilenet_v2"}
    assert sum(int(row["macs"]) for row in rows if row["model"] == "mobilenet_v1") == 568_740_352
    assert rows[0]["name"] == "stem" and rows[0]["output_shape"] == "112x112x32"


def test_cost_as_a_figure(tmp_path):
    file = tmp_path / "cost.png"
    assert json.loads(works("cost", "mobilenet_v1", "mobilenet_v2", "--json", "--plot", file))
    assert file.read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    "error, code, said",
    [
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (
            MemoryError("Unable to allocate 9 TiB"),
            2,
            "numnet: error: not enough memory (Unable to allocate 9 TiB)\n",
        ),
        (PermissionError(13, "Permission denied", "a file"), 2, "numnet: error: a file: Permission denied\n"),
        (OSError(28, "No space left on device"), 2, "numnet: error: No space left on device\n"),
        (library.NumnetError("two\nlines"), 2, "numnet: error: two lines\n"),
    ],
)
def test_exit_codes(monkeypatch, error, code, said):
    def fail(arguments):
        raise error

    monkeypatch.setattr(nets, "models", fail)
    assert numnet("models") == (code, "", said)


def test_our_own_mistakes_are_not_hidden(monkeypatch):
    """A traceback belongs to what a user cannot have got wrong."""
    monkeypatch.setattr(nets, "models", lambda arguments: [][1])
    with pytest.raises(IndexError):
        numnet("models")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_nobody_reads():
    """`numnet cost … | head -1`: no message, and the code that a shell gives a process ended by SIGPIPE."""
    with start("cost", "mobilenet_v1", "--csv") as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(60) == 141


# ------------------------------------------------------------------------------------------- small tools


def test_columns():
    assert columns([("a", 1), None, ("bcd", 20)], right=(1,)) == "a     1\n───────\nbcd  20"


def test_what_takes_long_is_said(capsys):
    """What takes long is said; what is over, or has begun to speak for itself, is not."""
    with IfSlow("still reading", 0.02):
        time.sleep(0.3)
    with IfSlow("too soon", 5):
        pass
    with IfSlow("a bar is shown", 0.2) as patience:
        patience.on_start(None)
        time.sleep(0.4)
    assert capsys.readouterr() == ("", "still reading\n")


def test_json_has_no_nan(capsys):
    print_json({"loss": float("nan"), "list": [1.5, float("inf")], "name": "é"})
    assert json.loads(capsys.readouterr().out) == {"loss": None, "list": [1.5, None], "name": "é"}
