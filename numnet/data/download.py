"""Download of the official CIFAR-10 archive to the user's cache: the whole archive or nothing."""

import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from numnet.data.connection import BUNDLES, those_set, trouble
from numnet.data.progress import bar
from numnet.errors import NumnetError, tell

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
BYTES = 170_052_171  # of that archive
OFFICIAL = {  # SHA-256 of the two archives that the data set's own page offers
    SHA256: "cifar-10-binary.tar.gz",
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce": "cifar-10-python.tar.gz",
}
ARCHIVE = "cifar-10-binary.tar.gz"
TIMEOUT = 30  # seconds without a byte from the server
GZIP = b"\x1f\x8b"
INSTEAD = "; or get the file by other means and name its folder as the data folder"


def cache_folder() -> Path:
    """Where downloads are kept: ``numnet`` in the user's cache; $NUMNET_CACHE instead if it is set."""
    from platformdirs import user_cache_path

    own = os.environ.get("NUMNET_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    try:
        return user_cache_path("numnet", appauthor=False)
    except RuntimeError:  # nobody's home: then as the kernels' cache does
        return Path(tempfile.gettempdir()) / f"numnet-{os.getuid()}"


def download_cifar10(folder=None, *, url=None, sha256=None, timeout: float = TIMEOUT) -> Path:
    """The archive in ``folder`` (None: the cache), fetched from ``url`` if it is not there yet.

    It is written to a temporary name, and takes its own name only when its checksum is right; what is left of
    a failed attempt is removed. NumnetError, one line, for a server that is gone, a certificate or a proxy that stands
    between, a cut connection, a page of
    text instead of the archive, another checksum, a folder that cannot be written.
    """
    import pooch
    from requests import exceptions

    url, sha256 = url or URL, sha256 or SHA256
    folder = cache_folder() if folder is None else Path(folder)
    path = folder / ARCHIVE
    if path.is_file():
        return path
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # what it would say is said by the errors below
    size = f" ({BYTES / 1e6:.0f} MB)" if url == URL else ""
    tell(f"downloading {url}{size} to {folder}")
    try:
        pooch.retrieve(url, f"sha256:{sha256}", ARCHIVE, folder, downloader=_Downloader(timeout))
    except exceptions.HTTPError as error:
        raise NumnetError(f"{url}: the server answers {error.response.status_code}{INSTEAD}") from None
    except exceptions.ChunkedEncodingError:
        raise NumnetError(f"{url}: the connection was cut in the middle; try again{INSTEAD}") from None
    except (exceptions.ConnectionError, exceptions.Timeout) as error:
        raise NumnetError(f"{url}: {trouble(error, urlsplit(url).netloc)}{INSTEAD}") from None
    except exceptions.RequestException as error:
        raise NumnetError(f"{url}: {' '.join(str(error).split())}{INSTEAD}") from None
    except NumnetError:
        raise
    except ValueError:  # pooch's word for another checksum
        raise NumnetError(
            f"{url}: another checksum than {sha256}: not the official archive{INSTEAD}"
        ) from None
    except OSError as error:
        if "CA certificate bundle" in str(error):  # of requests, for a variable that names no file
            raise NumnetError(
                f"{url}: {' '.join(str(error).split())}; see {those_set(BUNDLES)}{INSTEAD}"
            ) from None
        raise NumnetError(
            f"{folder}: cannot be written ({error.strerror or ' '.join(str(error).split())})"
        ) from None
    finally:
        logger.setLevel(level)
    return path


class _Downloader:
    """pooch's way of fetching, with a progress bar (on a terminal only), and a look at what came."""

    def __init__(self, timeout):
        self.timeout = timeout

    def __call__(self, url, output_file, pooch_object, check_only=False):
        import pooch

        # pooch sets the total, but takes a bar of no total for no bar
        with bar(total=1, unit="B", unit_scale=True, desc=ARCHIVE) as shown:
            pooch.HTTPDownloader(progressbar=shown, timeout=self.timeout)(url, output_file, pooch_object)
        with open(output_file, "rb") as file:
            start = file.read(512)
        if not start.startswith(GZIP):
            what = "a web page" if b"<" in start else "something else"
            raise NumnetError(f"{url}: {what} came instead of the archive{INSTEAD}")
