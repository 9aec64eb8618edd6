"""The explainer pages in a real browser: their numbers are numnet's, they do not complain, and a keyboard is enough."""

import base64
import hashlib
import io
import itertools
import json
import re
import sys
import tarfile
from pathlib import Path

import numpy as np
import oracle
import pytest
from browser import Browser, Server, chromium

import numnet
from numnet.data.transforms import resize_and_crop
from numnet.kernels.augment import scale
from numnet.kernels.conv import conv_cost
from numnet.kernels.depthwise import depthwise_cost
from numnet.kernels.eight_bits import quantise
from numnet.kernels.loss import softmax
from numnet.kernels.pointwise import pointwise_cost
from numnet.loading import PACKAGED, PACKAGED_INT8, load, load_any

DOCS = Path(__file__).parents[1] / "docs"
needs_browser = pytest.mark.skipif(chromium() is None, reason="no Chromium here: apt-get install chromium")
PAGES = ("index", "separable", "budget", "photo")
WIDTHS = {"desktop": 1200, "phone": 390}


@pytest.fixture(scope="module")
def builder():
    sys.path.append(str(DOCS))
    import build_explainer

    yield build_explainer
    sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def site(builder, tmp_path_factory):
    """The built pages: (folder, None or why the photograph page is not among them)."""
    folder = tmp_path_factory.mktemp("explainer")
    return folder, builder.build(folder)


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    try:
        browser.__enter__()
        browser.ask("Browser.getVersion")
    except (RuntimeError, OSError) as error:
        pytest.skip(f"Chromium does not run here: {error}")
    yield browser
    browser.__exit__()


@pytest.fixture
def open_page(site, browser):
    """open_page(name, width): a page of the site; at the end of the test it must not have complained."""
    opened = []
    with Server(site[0]) as address:

        def open_one(name, width=1200):
            opened.append(browser.open(f"{address}/{name}.html", width))
            return opened[-1]

        yield open_one
        complaints = [(page.run("document.title"), page.errors) for page in opened if page.errors]
        for page in opened:
            page.close()
    assert complaints == []


@pytest.fixture
def photo(open_page, site):
    if site[1]:
        pytest.skip(f"the photograph page is not built: {site[1]}")
    page = open_page("photo")
    page.until("document.body.dataset.shown !== undefined")
    return page


# --- building -----------------------------------------------------------------------------------------------


def test_without_the_photograph_page_the_site_says_why(builder, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "budget_data", dict)
    monkeypatch.setattr(builder.shutil, "which", lambda name: None)
    why = builder.build(tmp_path, cache=tmp_path / "cache")
    assert why == "the program npm is not installed"
    assert "without the photograph page" in (tmp_path / "photo.html").read_text("utf-8")
    told = json.loads((tmp_path / "build-data.js").read_text("utf-8").split(" = ")[1].rstrip(";\n"))
    assert told == {"photo": False, "why": why}
    names = {path.name for path in tmp_path.iterdir()}
    assert not names & {"photo.js", "photo-data.js", "cifar10.onnx", "ort", "photo-missing.html"}
    assert "cifar10_int8.onnx" not in names


def test_npm_without_a_network_is_no_error(builder, tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(builder.shutil, "which", lambda name: str(npm))
    with pytest.raises(builder.Missing, match="npm could not fetch onnxruntime-web"):
        builder.runtime(tmp_path)


def test_a_package_with_another_checksum_is_not_used(builder, tmp_path, monkeypatch):
    package = tmp_path / f"{builder.RUNTIME}-{builder.VERSION}.tgz"
    package.write_bytes(b"something else")
    with pytest.raises(builder.Missing, match="another checksum"):
        builder.runtime(tmp_path)
    assert not package.exists()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in {
            **dict.fromkeys((f"dist/{name}" for name in builder.FILES), b"x"),
            "package.json": b'{"license": "MIT"}',
        }.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    package.write_bytes(content.getvalue())
    digest = base64.b64encode(hashlib.sha512(content.getvalue()).digest()).decode()
    monkeypatch.setattr(builder, "SHA512", digest)
    builder.unpack(builder.runtime(tmp_path), tmp_path / "ort")
    assert {path.name for path in (tmp_path / "ort").iterdir()} == {*builder.FILES, "README.txt"}


def test_the_kept_times_name_their_machine(builder):
    times = json.loads(builder.TIMES.read_text("utf-8"))
    assert (
        times["machine"] and times["date"] and times["threads"] >= 1 and times["command"].endswith("--times")
    )
    nets = [(model, where) for model, found in times["ms"].items() for where in found]
    assert len(nets) >= 100 and {model for model, _ in nets} == set(builder.MODELS)
    assert all(times["ms"][model][where] > 0 for model, where in nets)


def test_pages_of_a_site_lead_back_to_it(builder, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "budget_data", dict)
    builder.build(tmp_path, photo=False, home="../index.html")
    for page in tmp_path.glob("*.html"):
        assert page.read_text("utf-8").count('<li><a href="../index.html">Documentation</a></li>') == 1


def test_the_command(builder, tmp_path, capsys):
    assert builder.main([str(tmp_path / "site"), "--no-photo"]) == 0
    assert "without the photograph page: it was left out on request" in capsys.readouterr().out
    assert (tmp_path / "site" / "index.html").is_file()


# --- all pages ----------------------------------------------------------------------------------------------


@needs_browser
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("device", WIDTHS)
def test_a_page_opens_without_complaint_and_fits_its_screen(name, device, open_page, site):
    page = open_page(name, WIDTHS[device])
    if name == "photo" and not site[1]:
        page.until("document.body.dataset.shown !== undefined")
    assert page.run("document.documentElement.scrollWidth") <= WIDTHS[device]
    assert (
        page.run("document.querySelectorAll('h1').length") == 1
        and page.run("document.documentElement.lang") == "en"
    )
    folder = page.run("location.href").rpartition("/")[0]
    assert len(page.asked) >= 3
    assert [url for url in page.asked if not url.startswith((f"{folder}/", "data:", "blob:"))] == []
    nameless = []
    for node in page.ask("Accessibility.getFullAXTree")["nodes"]:
        role, told = node.get("role", {}).get("value"), node.get("name", {}).get("value")
        if not node["ignored"] and role in SPOKEN and not told:
            nameless.append(node)
    assert nameless == []


SPOKEN = (
    "button",
    "link",
    "slider",
    "spinbutton",
    "radio",
    "checkbox",
    "combobox",
    "image",
    "img",
    "progressbar",
    "table",
)


@needs_browser
@pytest.mark.parametrize("name", ("index", "separable", "budget"))
def test_a_page_works_as_a_file_too(name, site, browser):
    page = browser.open((site[0] / f"{name}.html").as_uri())
    assert page.run("document.querySelector('h1').textContent.length") > 5
    assert page.errors == []
    page.close()


# --- standard against separable -----------------------------------------------------------------------------

SET = """(grid) => grid.map((sizes) => {
    for (const [id, value] of Object.entries(sizes)) {
        const box = document.getElementById(id);
        box.value = value;
        box.dispatchEvent(new Event("input"));
        box.dispatchEvent(new Event("change"));
    }
    const read = (name) => [...document.getElementById(`row-${name}`).children].slice(3).map((cell) => cell.textContent);
    return [...["standard", "depthwise", "pointwise", "separable"].map(read),
        ["ratio", "macs-standard", "macs-separable"].map((id) => document.getElementById(id).textContent)];
})"""


@needs_browser
def test_counts_and_ratio_are_numnets_closed_forms(open_page):
    page = open_page("separable")
    grid = list(itertools.product((1, 2, 3, 5, 7), (1, 3, 64, 1000), (1, 24, 128, 4096), (1, 7, 112, 512)))
    shown = page.run(f"({SET})({json.dumps([dict(zip(('K', 'C', 'F', 'side'), sizes)) for sizes in grid])})")
    assert len(shown) == 320
    for (k, c, f, side), (*rows, (ratio, standard, separable)) in zip(grid, shown):
        conv = conv_cost(1, side, side, k, c, f, h=side, w=side)
        deep = depthwise_cost(1, side, side, k, c, h=side, w=side)
        point = pointwise_cost(1, side, side, c, f)
        both = deep.macs + point.macs, deep.params + point.params
        want = [(conv.macs, conv.params), (deep.macs, deep.params), (point.macs, point.params), both]
        assert rows == [[f"{n:,}" for n in pair] for pair in want], (k, c, f, side)
        assert (standard, separable) == (f"{conv.macs:,}", f"{both[0]:,}")
        assert ratio.endswith("×") and abs(float(ratio[:-1]) - conv.macs / both[0]) <= 0.00501


@needs_browser
@pytest.mark.parametrize("sizes", [(4, 3, 3, 4), (2, 1, 1, 1), (6, 5, 4, 4), (3, 2, 2, 3), (5, 4, 1, 2)])
def test_both_sides_of_the_race_end_with_the_right_output(sizes, open_page):
    side, k, c, f = sizes
    page = open_page("separable")
    for name, value in zip(("side", "K", "C", "F"), sizes):
        page.put(f"small-{name}", value)
    standard = conv_cost(1, side, side, k, c, f, h=side, w=side).macs
    separable = (
        depthwise_cost(1, side, side, k, c, h=side, w=side).macs + pointwise_cost(1, side, side, c, f).macs
    )
    assert page.run("Number(document.getElementById('tick').max)") == max(standard, separable)
    page.run("document.getElementById('end').click()")
    assert page.text("count-standard") == f"{standard:,} of {standard:,}"
    assert page.text("count-separable") == f"{separable:,} of {separable:,}"
    read = "JSON.stringify(scene.grids.{0}.map((grid) => grid.cells.map((row) => row.map((cell) => cell.textContent))))"

    def numbers(name):
        cells = json.loads(page.run(read.format(name)))
        return np.array([[[float(n.replace("−", "-")) for n in row] for row in grid] for grid in cells])

    given = json.loads(
        page.run("JSON.stringify({x: [...scene.x.at], d: [...scene.d.at], m: [...scene.m.at]})")
    )
    x, d, m = np.zeros((side, side, c)), np.zeros((k, k, c, 1)), np.zeros((c, f))
    for array, name in ((x, "x"), (d[..., 0], "d"), (m, "m")):
        for place, value in given[name]:
            array[tuple(map(int, place.split(",")))] = value
    padding = oracle.resolve("same", (side, side), (k, k), 1)
    between = oracle.depthwise(x[None], d, 1, padding)
    want = oracle.pointwise(between, m)[0].transpose(2, 0, 1)
    composed = oracle.conv(x[None], d * m[None, None], 1, padding)[0].transpose(2, 0, 1)
    assert np.array_equal(numbers("y1"), want) and np.array_equal(numbers("y2"), want)
    assert np.array_equal(composed, want) and np.array_equal(numbers("z"), between[0].transpose(2, 0, 1))


@needs_browser
def test_every_step_of_the_race_adds_its_product(open_page):
    """Read sentence after sentence: each product, and the sum so far."""
    page = open_page("separable")
    told = page.run("""Array.from({length: 624}, (_, t) => {
        seek(t + 1);
        return ["say-standard", "say-separable"].map((id) => document.getElementById(id).textContent);
    })""")
    number = r"\(?(−?\d+)\)?"
    checked = 0
    for lane in (0, 1):
        total = 0
        for sentence in (step[lane] for step in told):
            match = re.search(
                rf"= {number} · {number} = (−?\d+)\s+product (\d+) of (\d+), sum so far (−?\d+)", sentence
            )
            if match is None:
                assert sentence.startswith("Done after 624")
                continue
            a, b, product, step, _, so_far = (int(n.replace("−", "-")) for n in match.groups())
            total = product if step == 1 else total + product
            assert a * b == product and total == so_far, sentence
            checked += 1
    assert checked == 2 * 624 - 1


@needs_browser
def test_the_race_runs_from_the_keyboard(open_page):
    page = open_page("separable")
    now = "document.getElementById('tick-now').textContent"
    page.run("document.getElementById('tick').focus()")
    for _ in range(3):
        page.key("ArrowRight")
    assert page.run(now) == "3"
    page.run("document.getElementById('on').focus()")
    page.key("Enter")
    assert page.run(now) == "4" and "product 4 of 27" in page.run(
        "document.getElementById('spoken').textContent"
    )
    page.run("document.getElementById('speed').value = '200'")
    page.run("document.getElementById('play').focus()")
    page.key("Enter")
    page.until("race.tick > 50")
    page.key("Enter")
    assert page.run("race.timer") is None and "Play" in page.run(
        "document.getElementById('play').textContent"
    )
    page.run("document.getElementById('K').focus()")
    page.key("ArrowUp")
    assert page.run("document.getElementById('K').value") == "4"
    page.until("location.hash === '#K=4&C=64&F=128&side=56'")


@needs_browser
def test_sizes_that_do_not_exist_are_brought_into_range(open_page):
    page = open_page("separable")
    for typed, taken in (("0", "1"), ("99999", "4096"), ("", "1"), ("2.6", "3")):
        page.put("C", typed)
        assert page.run("document.getElementById('C').value") == taken
    assert "NaN" not in page.run("document.body.innerText")


# --- width × resolution -------------------------------------------------------------------------------------


@needs_browser
def test_the_budget_shows_what_numnet_counts(open_page, builder):
    page = open_page("budget")
    times = json.loads(builder.TIMES.read_text("utf-8"))["ms"]
    shown = page.run("""Object.keys(data.models).flatMap((model) => data.widths.flatMap((width) => data.sides.map((side) => {
        choose({ model, width, side });
        return [model, width, side, document.getElementById("exact").textContent, document.getElementById("ms").textContent];
    })))""")
    assert len(shown) == 5 * 7 * 6
    for model, width, side, exact, ms in shown:
        net = numnet.describe(model, width=width, resolution=side)
        cost = net.cost()
        want = (
            cost.macs,
            cost.params,
            cost.params + cost.buffers,
            4 * (cost.params + cost.buffers),
            numnet.cost.peak_inference(net),
        )
        numbers = [int(n.replace(",", "")) for n in re.findall(r"[\d,]*\d", exact.split("exactly", 1)[1])]
        assert tuple(numbers) == want, (model, width, side)
        measured = times[model].get(f"{width:g}/{side}")
        assert ms == ("–" if measured is None else f"{measured:.2f}")


@needs_browser
def test_the_best_net_within_a_budget(open_page):
    page = open_page("budget")
    verdict = "document.getElementById('verdict').textContent"
    page.run("document.querySelector('input[name=kind][value=macs]').click()")
    for step in range(0, 101, 10):
        page.put("limit", step)
        most, nets = page.run("limit()"), page.run("published.map((p) => [p.name, p.top1, p.macs])")
        fits = [net for net in nets if net[2] <= most]
        if fits:
            best = max(net[1] for net in fits)
            assert f", {best:g} % at" in page.run(verdict) and f"{len(fits)} of {len(nets)}" in page.run(
                verdict
            )
        else:
            assert "No published net" in page.run(verdict)
    assert len(fits) == len(nets) == 10


@needs_browser
def test_the_grid_is_walked_with_arrow_keys(open_page):
    page = open_page("budget")
    page.run("document.querySelector('#grid [aria-pressed=true]').focus()")
    for name in ("ArrowUp", "ArrowLeft", "ArrowLeft"):
        page.key(name)
    assert page.run("[state.width, state.side]") == [0.75, 160]
    assert page.run("document.activeElement.getAttribute('aria-label')").startswith(
        "width 0.75, 160 pixels: "
    )
    page.run("document.querySelector('input[name=metric][value=ms]').click()")
    assert page.run("document.querySelectorAll('#grid button').length") == 42
    page.key("Tab")


@needs_browser
def test_without_times_the_page_says_so(builder, tmp_path, monkeypatch, browser):
    monkeypatch.setattr(builder, "TIMES", tmp_path / "none.json")
    monkeypatch.setattr(builder, "WIDTHS", (0.25, 0.35, 0.5, 0.75, 1.0))
    builder.build(tmp_path / "site", photo=False)
    page = browser.open((tmp_path / "site" / "budget.html").as_uri())
    assert page.text("ms-label") == "not timed"
    assert page.run("document.getElementById('clock-card').hidden") is True
    assert page.run("[...document.querySelectorAll('input[name=kind]')].map((i) => i.value)") == ["macs"]
    assert page.errors == []
    page.close()


# --- the photograph -----------------------------------------------------------------------------------------


def pictures():
    """Images of many sizes: waves of colour with blots on them."""
    draw = np.random.default_rng(5)
    for high, wide in ((32, 32), (20, 45), (64, 48), (97, 131), (300, 200), (31, 33), (1, 5)):
        i, j = np.mgrid[:high, :wide]
        waves = [np.sin(i / draw.uniform(3, 30) + j / draw.uniform(3, 30) + n) for n in range(3)]
        image = 128 + 90 * np.stack(waves, 2) + draw.normal(0, 12, (high, wide, 3))
        top, left = draw.integers(0, high), draw.integers(0, wide)
        image[top : top + high // 3 + 1, left : left + wide // 3 + 1] = draw.uniform(0, 255, 3)
        yield np.clip(image, 0, 255).astype(np.uint8)


@needs_browser
def test_a_photograph_is_shrunk_as_numnet_shrinks_it(photo):
    for image in pictures():
        high, wide = image.shape[:2]
        opaque = np.concatenate([image, np.full((high, wide, 1), 255, np.uint8)], 2)
        text = base64.b64encode(opaque.tobytes()).decode()
        got = photo.run(
            f"[...shrink(Uint8ClampedArray.from(atob('{text}'), (c) => c.charCodeAt(0)), {wide}, {high})]"
        )
        assert np.array_equal(np.reshape(got, (32, 32, 3)), resize_and_crop(image, 32, "stretch")), (
            image.shape
        )


@needs_browser
def test_the_page_answers_as_numnet_predict_does(photo, tmp_path):
    from PIL import Image

    from numnet.plotting import class_activation_maps

    net = load(PACKAGED)
    for number, image in enumerate(pictures()):
        file = tmp_path / f"picture{number}.png"
        Image.fromarray(image).save(file)
        photo.choose_file("#file", file)
        photo.until(f"document.body.dataset.shown === '{file.name}'")
        x = scale(
            resize_and_crop(image, 32, "stretch")[None], net.scaling["mean"], net.scaling["std"], net.dtype
        )
        want = softmax(net.predict(x))[0]
        got = photo.run("state.answer.shares")
        assert np.abs(np.array(got) - want).max() < 1e-4
        order = photo.run(
            "[...document.querySelectorAll('#answers button')].map((b) => b.firstChild.textContent)"
        )
        assert order[0] == net.class_names[int(want.argmax())] and order[0] in photo.run(
            "document.getElementById('status').textContent"
        )
        cam = class_activation_maps(net, x)[0, ..., int(want.argmax())].ravel()
        got = np.array(photo.run("[...activation(state.answer, state.chosen)]"))
        assert np.abs(got - cam).max() < 1e-3 * np.abs(cam).max()
        maps = net.maps(x, "block5")["block5"][0].transpose(2, 0, 1).ravel()
        got = np.array(photo.run("[...state.answer.maps.block5.data]"))
        assert np.abs(got - maps).max() < 1e-3 * np.abs(maps).max()


@needs_browser
def test_another_class_all_channels_and_what_is_no_image(photo, tmp_path):
    assert photo.run("document.querySelectorAll('#blocks canvas').length") == 12 * 8
    photo.run("document.querySelectorAll('#answers button')[3].focus()")
    photo.key("Enter")
    chosen = photo.run("document.querySelector('#answers [aria-pressed=true] span').textContent")
    assert f"“{chosen}”" in photo.text("cam-caption")
    assert photo.run("document.querySelectorAll('#answers [aria-pressed=true]').length") == 1
    photo.run("document.getElementById('every').click()")
    channels = sum(shape[2] for shape in photo.run("data.blocks.map((b) => b.shape)"))
    assert photo.run("document.querySelectorAll('#blocks canvas').length") == channels
    (tmp_path / "text.png").write_text("no picture")
    photo.choose_file("#file", tmp_path / "text.png")
    photo.until("document.getElementById('status').className === 'warning'")
    assert "text.png is not an image" in photo.text("status")


@needs_browser
def test_the_same_photograph_in_eight_bits(photo, tmp_path):
    """The reader chooses int8: its own answer, maps a step or two from numnet's, and what the page says of rounding."""
    from PIL import Image

    net = load_any(PACKAGED_INT8)
    assert photo.run("document.getElementById('nets').hidden") is False
    labels = photo.run("[...document.querySelectorAll('#nets label')].map((label) => label.textContent)")
    assert [label.partition(":")[0] for label in labels] == ["float32", "int8"]
    assert all(f"{100 * load_any(file).document['result']['test_accuracy']:.1f} %" in label
               for label, file in zip(labels, (PACKAGED, PACKAGED_INT8)))  # fmt: skip
    place = max(number for number, step in enumerate(net.steps) if step.name.startswith("block5."))
    grid = net.steps[place].grid
    for number, image in enumerate(pictures()):
        file = tmp_path / f"picture{number}.png"
        Image.fromarray(image).save(file)
        photo.choose_file("#file", file)
        photo.until(f"document.body.dataset.shown === '{file.name}'")
        if number == 0:  # from here on by the second net, whose answer replaces the first one's
            photo.run(
                "window.before = state.answer; document.querySelector('input[name=net]:checked').focus()"
            )
            photo.key("ArrowRight")
            photo.until("state.net.name === 'int8' && state.answer !== window.before")
        small = resize_and_crop(image, 32, "stretch")[None]
        x = scale(small, net.scaling["mean"], net.scaling["std"], net.dtype)
        want = softmax(net.predict(x))[0]
        assert np.abs(np.array(photo.run("state.answer.shares")) - want).max() < 0.05
        whole = net.maps(quantise(x, net.grid))[place + 1][0].transpose(2, 0, 1).ravel()
        got = np.array(photo.run("[...state.answer.maps.block5.data]")) / grid.scale + grid.zero
        apart = np.abs(np.round(got) - whole)
        assert apart.max() <= 2 and (apart == 0).mean() > 0.95
        places = photo.run("[...activation(state.answer, 0)]")
        assert abs(np.mean(places) - photo.run("state.answer.logits[0]")) < 0.3
        assert "but for what eight bits round off" in photo.text("cam-words")
    assert photo.errors == []


@needs_browser
def test_opened_as_a_file_the_page_says_what_it_needs(site, browser):
    if site[1]:
        pytest.skip(f"the photograph page is not built: {site[1]}")
    page = browser.open((site[0] / "photo.html").as_uri())
    page.until("document.getElementById('status').textContent.includes('python -m http.server')")
    page.close()
