"""The download against a server of our own on this machine, well behaved and otherwise."""

import hashlib
import http.server
import io
import json
import shutil
import ssl
import subprocess
import sys
import tarfile
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from cli_tools import numnet as command
from PIL import Image

from numnet import data
from numnet.data import cifar10, connection, download, progress
from numnet.errors import NumnetError


def archive_of(images):
    """A small CIFAR-10 archive of random images."""
    buffer, rng = io.BytesIO(), np.random.default_rng(0)
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in cifar10.BINARY:
            records = rng.integers(0, 10, (images, 3073), dtype=np.uint8).tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(records)
            archive.addfile(member, io.BytesIO(records))
    return buffer.getvalue()


ARCHIVE = archive_of(20)
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        getattr(self, self.path.strip("/").split("/")[0])()

    def send(self, content, status=200, length=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def good(self):
        self.send(ARCHIVE)

    def wrong(self):
        self.send(ARCHIVE[:-1] + b"?")

    def page(self):
        self.send(b"<!DOCTYPE html><html>Please log in to this network</html>")

    def text(self):
        self.send(b"no such thing here")

    def cut(self):
        self.send(ARCHIVE[: len(ARCHIVE) // 2], length=len(ARCHIVE))

    def unsized(self):  # cut, and nobody said how long it should have been
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ARCHIVE[: len(ARCHIVE) // 2])

    def missing(self):
        self.send(b"gone", status=404)

    def silent(self):
        self.server.released.wait(10)

    def moved(self):
        self.send_response(302)
        self.send_header("Location", "/good")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.released = [], threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def test_the_archive_is_fetched_once_and_read(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cifar10, "IMAGES", 20)
    monkeypatch.setenv("NUMNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NUMNET_DATA", raising=False)
    url = f"{server.url}/good"
    path = download.download_cifar10(url=url, sha256=SHA256)
    assert path == tmp_path / "cache" / "cifar-10-binary.tar.gz" and path.read_bytes() == ARCHIVE
    assert list(path.parent.iterdir()) == [path]
    assert download.download_cifar10(url=url, sha256=SHA256) == path and server.asked == ["/good"]
    assert f"downloading {url}" in capsys.readouterr().err
    read = data.load("cifar10")
    assert len(read.train) == 100 and len(read.test) == 20


def test_the_data_command(server, tmp_path, monkeypatch):
    """It fetches what is not there, counts what lies there, and knows the official archive by its checksum."""
    monkeypatch.setattr(cifar10, "IMAGES", 20)
    monkeypatch.setenv("NUMNET_CACHE", str(tmp_path))
    monkeypatch.delenv("NUMNET_DATA", raising=False)
    monkeypatch.setattr(download, "URL", f"{server.url}/good")
    monkeypatch.setattr(download, "SHA256", SHA256)
    code, out, err = command("data", "cifar10", "--json")
    facts = json.loads(out)
    assert (
        code == 0 and f"(170 MB) to {tmp_path}" in err and facts["path"] == str(tmp_path / download.ARCHIVE)
    )
    assert sum(facts["train"]) == 100 and sum(facts["test"]) == 20 and len(facts["classes"]) == 10
    assert (facts["official"], facts["sha256"], facts["bytes"]) == (False, SHA256, len(ARCHIVE))
    monkeypatch.setattr(download, "OFFICIAL", {SHA256: download.ARCHIVE})
    code, out, err = command("data", "cifar10")
    assert code == 0 and err == "" and "the official archive" in out and "train on it" in out
    least, most = min(facts["train"]), max(facts["train"])
    assert f"100, {least} to {most} of each of 10 classes" in out
    own = tmp_path / "own" / "cifar-10-batches-bin"
    with tarfile.open(tmp_path / download.ARCHIVE) as archive:
        archive.extractall(own.parent, filter="data")
    out = command("data", "cifar10", "--data", own)[1]
    assert "this is a folder" in out and f"numnet train cifar10 --data {own}" in out
    (own / "test_batch.bin").write_bytes(b"\x00" * 100)
    for wrong, words in (
        (own, "test_batch.bin: 100 bytes, expected 61,460"),
        (tmp_path / "no", "no such file"),
    ):
        code, out, err = command("data", "cifar10", "--data", wrong)
        assert code == 2 and words in err and len(err.splitlines()) == 1 and out == ""
    assert command("data", "cifar")[0] == 2


def test_load_downloads_what_it_does_not_find(server, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "IMAGES", 20)
    monkeypatch.setenv("NUMNET_CACHE", str(tmp_path))
    monkeypatch.delenv("NUMNET_DATA", raising=False)
    monkeypatch.setattr(download, "URL", f"{server.url}/moved")
    monkeypatch.setattr(download, "SHA256", SHA256)
    assert len(data.load("cifar10").train) == 100
    assert server.asked == ["/moved", "/good"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("wrong", "another checksum than"),
        ("unsized", "another checksum than"),
        ("page", "a web page came instead of the archive"),
        ("text", "something else came instead of the archive"),
        ("cut", "the connection was cut in the middle; try again"),
        ("missing", "the server answers 404"),
        pytest.param(
            "silent",
            "no answer from 127.0.0.1",
            # Python's own http.client leaves its socket to the garbage collector when it gives up waiting
            marks=pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
        ),
    ],
)
def test_nothing_but_the_whole_archive_stays(server, tmp_path, path, says):
    url = f"{server.url}/{path}"
    with pytest.raises(NumnetError, match=says) as excinfo:
        download.download_cifar10(tmp_path, url=url, sha256=SHA256, timeout=0.3)
    message = str(excinfo.value)
    assert message.startswith(url) and "\n" not in message and "data folder" in message
    assert list(tmp_path.iterdir()) == []
    assert (
        download.download_cifar10(tmp_path, url=f"{server.url}/good", sha256=SHA256).read_bytes() == ARCHIVE
    )


def test_a_server_that_is_gone(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_port
    with pytest.raises(NumnetError, match=f"no connection to 127.0.0.1:{port}"):
        download.download_cifar10(tmp_path, url=f"http://127.0.0.1:{port}/good", sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


CA = """[ca]
default_ca = own
[own]
database = index.txt
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
subjectAltName = {name}
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """certificate(name, start, end): files of a key and of a certificate that signs itself, both made by openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")

    def make(name="IP:127.0.0.1", start="20200101000000Z", end="21200101000000Z"):
        home = tmp_path_factory.mktemp("ca")
        (home / "index.txt").write_text("")
        (home / "serial").write_text("01")
        (home / "ca.cnf").write_text(CA.format(name=name))
        key = "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=own -keyout key.pem -out own.csr"
        dates = f"-startdate {start} -enddate {end}"
        own = f"ca -batch -selfsign -config ca.cnf -in own.csr -keyfile key.pem {dates} -out own.pem"
        for words in (key, own):
            subprocess.run(["openssl", *words.split()], cwd=home, check=True, capture_output=True)
        return home / "own.pem", home / "key.pem"

    return make


@pytest.mark.parametrize(
    "options, trusted, says",
    [
        ({}, False, "its certificate is self-signed"),
        ({"end": "20200102000000Z"}, True, "its certificate has expired"),
        ({"start": "21190101000000Z"}, True, "its certificate is not valid yet"),
        ({"name": "DNS:elsewhere.invalid"}, True, "its certificate is for another host"),
    ],
)
def test_certificates_are_named(options, trusted, says, server, certificate, tmp_path, monkeypatch):
    own, key = certificate(**options)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *who: None  # the client hangs up on it
    if trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(own))
    folder = tmp_path / "cache"
    folder.mkdir()
    with pytest.raises(NumnetError, match=says) as excinfo:
        download.download_cifar10(folder, url=server.url.replace("http", "https") + "/good", sha256=SHA256)
    assert "\n" not in str(excinfo.value) and list(folder.iterdir()) == []
    assert "REQUESTS_CA_BUNDLE" in str(excinfo.value)


def test_a_certificate_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(NumnetError, match=r"none\.pem; see REQUESTS_CA_BUNDLE"):
        download.download_cifar10(tmp_path, url="https://127.0.0.1:1/good", sha256=SHA256)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_down_is_named(scheme, tmp_path, monkeypatch):
    for name in ("NO_PROXY", "no_proxy", *connection.PROXIES):
        monkeypatch.delenv(name, raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as gone:
        port = gone.server_port
    monkeypatch.setenv(f"{scheme}_proxy", f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(NumnetError) as excinfo:
        download.download_cifar10(tmp_path, url=f"{scheme}://data.invalid/good", sha256=SHA256)
    text = str(excinfo.value)
    assert f"the proxy cannot be reached or refuses; it is named in {scheme}_proxy" in text
    assert "\n" not in text and "secret" not in text


def test_a_proxy_that_asks_for_a_password(server, tmp_path, monkeypatch):
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setattr(Handler, "do_CONNECT", lambda self: self.send_error(407), raising=False)
    monkeypatch.setenv("https_proxy", server.url)
    with pytest.raises(
        NumnetError, match="the proxy wants a user and a password; it is named in https_proxy"
    ):
        download.download_cifar10(tmp_path, url="https://data.invalid/good", sha256=SHA256)


def test_a_name_that_is_not_known(tmp_path, monkeypatch):
    from requests import exceptions

    error = exceptions.ConnectionError(
        "Failed to resolve 'data.invalid' ([Errno -2] Name or service not known)"
    )
    assert connection.trouble(error, "data.invalid").endswith("its name is not known here")
    assert "in time" in connection.trouble(exceptions.ReadTimeout("read timed out"), "data.invalid")


# ------------------------------------------------------------------------------------------- progress


@pytest.mark.parametrize("notebook", [True, False])
def test_bars_are_shown_in_notebooks_too(notebook, tmp_path, monkeypatch, capsys):
    """Standard error of a kernel is no terminal; a load that takes long shows how far it is all the same."""
    shell = types.SimpleNamespace(kernel=object() if notebook else None)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(progress, "SOON", 0)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for number in range(3):
            (tmp_path / "train" / name).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{number}.png")
    data.load(tmp_path, resolution=8)
    assert ("reading images" in capsys.readouterr().err) == notebook


@pytest.mark.parametrize("url", ["http://", "http://[::1", "nonsense://127.0.0.1/x"])
def test_an_address_that_is_none(tmp_path, url):
    with pytest.raises(NumnetError) as excinfo:
        download.download_cifar10(tmp_path, url=url, sha256=SHA256)
    assert "\n" not in str(excinfo.value) and list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NumnetError, match="file/cache: cannot be written") as excinfo:
        download.download_cifar10(tmp_path / "file" / "cache", url=f"{server.url}/good", sha256=SHA256)
    assert "\n" not in str(excinfo.value)


def test_a_stopped_download_leaves_nothing(server, tmp_path, monkeypatch):
    """Ctrl-C in the middle: as if after the first piece."""
    import pooch

    def interrupted(self, url, output_file, pooch_object):
        Path(output_file).write_bytes(ARCHIVE[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download.download_cifar10(tmp_path, url=f"{server.url}/good", sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


def test_the_progress_bar(server, tmp_path, monkeypatch):
    """On a terminal a bar shows how much has come; in a log file there is none."""
    shown = {}
    for terminal in (True, False):
        screen = io.StringIO()
        screen.isatty = lambda terminal=terminal: terminal
        monkeypatch.setattr("sys.stderr", screen)
        download.download_cifar10(tmp_path / str(terminal), url=f"{server.url}/good", sha256=SHA256)
        shown[terminal] = screen.getvalue()
    assert "100%" in shown[True] and "%" not in shown[False]
    assert shown[False].count("\n") == 1


def test_the_official_address():
    assert download.URL == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert len(download.SHA256) == 64 and download.SHA256.startswith("c4a38c50a1bc5f3a")
