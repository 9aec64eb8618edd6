"""Why a download did not come about: the certificate, the proxy, the name, or nobody there."""

import os

UNKNOWN = "its certificate is signed by an authority that this machine does not know"
CERTIFICATES = (  # what OpenSSL says, and what it means
    (
        "self-signed certificate in certificate chain",
        UNKNOWN,
    ),
    ("self-signed", "its certificate is self-signed"),
    ("certificate has expired", "its certificate has expired"),
    ("not yet valid", "its certificate is not valid yet; is this machine's clock right?"),
    ("Hostname mismatch", "its certificate is for another host"),
    ("IP address mismatch", "its certificate is for another host"),
    ("unable to get local issuer", UNKNOWN),
)
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def trouble(error, host) -> str:
    """What stands between this machine and ``host``: the certificate, the proxy, or no connection at all."""
    from requests import exceptions

    text = " ".join(str(error).split())
    if isinstance(error, exceptions.ProxyError):
        proxy = those_set(PROXIES) or "the system's settings"
        if "407" in text:
            return f"the proxy wants a user and a password; it is named in {proxy}"
        return f"the proxy cannot be reached or refuses; it is named in {proxy}"
    if isinstance(error, exceptions.SSLError):
        if "certificate" not in text.lower():
            return f"{host} does not speak TLS as it should ({_reason(text)})"
        what = next((words for sign, words in CERTIFICATES if sign.lower() in text.lower()), None)
        what = what or f"its certificate is not accepted ({_reason(text)})"
        return f"{host}: {what}; where a company's proxy opens connections, name its certificate in REQUESTS_CA_BUNDLE"
    if isinstance(error, exceptions.Timeout):
        return f"no answer from {host} in time"
    if "resolve" in text or "getaddrinfo" in text:
        return f"no connection to {host}: its name is not known here"
    return f"no connection to {host}"


def _reason(text) -> str:
    """The last bracket of what OpenSSL says."""
    return text.rpartition("] ")[2].rstrip(")'\"")[:120] if "] " in text else text[:120]


def those_set(names) -> str:
    """Those environment variables that are set, without passwords: only their names."""
    return ", ".join(name for name in names if os.environ.get(name))
