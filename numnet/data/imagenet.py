"""The names of ImageNet's 1,000 classes, in the order that all published nets share: fetched once, then cached.

Keras's list (the WordNet number and a word for each index), known by its checksum. Without a network there are no names,
and numbers have to do.
"""

import json

from numnet.data.download import cache_folder

URL = "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
MD5 = "c2c37ea517e94d9795004a39431a14cb"
FILE = "imagenet_class_index.json"
CLASSES = 1000
TIMEOUT = 10  # seconds without a byte from the server


def class_names(url=None, md5=None) -> list[str] | None:
    """The names in the order of the classes, or None if they are neither in the cache nor to be had."""
    return _column(1, url, md5)


def class_ids(url=None, md5=None) -> list[str] | None:
    """The same as WordNet's numbers, n01440764 …: what the folders of ImageNet are called."""
    return _column(0, url, md5)


def _column(column, url, md5) -> list[str] | None:
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        downloader = pooch.HTTPDownloader(progressbar=False, timeout=TIMEOUT)
        path = pooch.retrieve(url or URL, f"md5:{md5 or MD5}", FILE, cache_folder(), downloader=downloader)
        with open(path, encoding="utf-8") as file:
            table = json.load(file)
        return [table[str(i)][column].replace("_", " ") for i in range(CLASSES)]
    except (OSError, ValueError, KeyError, IndexError, TypeError):  # requests' errors are OSErrors
        return None
    finally:
        logger.setLevel(level)


def hint() -> str:
    """One line for a user who sees numbers instead of names."""
    return f"no names of ImageNet's classes (no connection?): showing numbers; {URL} belongs into {cache_folder()}"
