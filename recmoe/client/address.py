"""The address of a server, and how a client says who it is."""

from urllib.parse import quote, urlsplit

from recmoe.errors import ServingError


def split_url(url: str) -> tuple[bool, str, int, str]:
    """Whether a URL is https, its host, its port and its path; ServingError where it names no server."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError as error:
        raise ServingError(f"{url!r} is not the URL of a server: {error}; write http://HOST:PORT") from error
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ServingError(f"{url!r} is not the URL of a server; write http://HOST:PORT")
    is_encrypted = parts.scheme == "https"
    return is_encrypted, host, port or (443 if is_encrypted else 80), quote(parts.path.rstrip("/"), safe="/%")


def authorization(token: str | None) -> dict[str, str]:
    """The header of a bearer token; ServingError where no header can hold it."""
    if token is None:
        return {}
    token = token.strip()
    if not (token and token.isascii() and token.isprintable()):
        raise ServingError("the token is empty or holds characters that no header carries; give it as it was issued")
    return {"Authorization": f"Bearer {token}"}
