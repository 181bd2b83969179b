"""What the name of a column says about it, in the words of click and conversion logs."""

import re

ID_WORDS = {"id", "ids", "key", "uuid", "guid", "hash", "code", "sku", "zip", "zipcode", "postcode", "category", "type"}
USER_WORDS = {"user", "uid", "member", "customer", "viewer", "visitor", "account", "userid", "buyer", "reader"}
ITEM_WORDS = {
    "item", "itemid", "product", "article", "sku", "video", "movie", "song", "track", "ad", "adid", "creative", "doc",
    "document", "hotel", "listing", "post", "candidate", "campaign", "book", "asin", "news", "offer", "feed", "note",
}  # fmt: skip
LIST_WORDS = {
    "request",
    "req",
    "query",
    "impression",
    "session",
    "search",
    "auction",
    "slate",
    "list",
    "pageview",
    "page",
}
CONTEXT_WORDS = {
    "device", "hour", "weekday", "day", "month", "platform", "os", "browser", "page", "channel", "referrer", "network",
    "slot", "connection", "locale", "language", "surface", "placement", "app",
}  # fmt: skip
LABEL_WORDS = {
    "click", "clicks", "clicked", "clk", "conversion", "converted", "convert", "conv", "purchase", "purchased", "buy",
    "bought", "order", "ordered", "install", "installed", "like", "liked", "share", "shared", "follow", "followed",
    "favorite", "favourite", "fav", "favorited", "cart", "atc", "visit", "visited", "label", "target", "y", "outcome",
    "response", "responded", "subscribe", "subscribed", "signup", "watched", "finish", "finished", "complete",
    "completed", "played", "skip", "skipped", "hide", "hidden", "report", "reported", "dislike", "disliked", "comment",
    "commented", "interaction", "returned", "refund", "refunded", "churn", "churned", "booking", "booked", "lead",
    "save", "saved", "paid", "pay", "effective", "applied", "opened", "open", "unsubscribe", "unsubscribed",
    "complaint", "complained", "cancelled", "canceled", "upvote", "upvoted", "downvote", "downvoted", "reply",
    "replied", "repost", "reposted", "retweet", "retweeted", "donated",
}  # fmt: skip
AMOUNT_WORDS = {"rating", "stars", "dwell", "watch", "watchtime", "playtime", "spend", "spent", "revenue", "gmv", "ltv"}
# A count of earlier clicks is a feature, whatever else the name says.
PAST_WORDS = {
    "num", "count", "cnt", "total", "avg", "mean", "past", "prior", "prev", "previous", "last", "hist", "history",
    "before", "ever", "rate", "ctr", "cvr", "recent", "7d", "14d", "30d", "1d", "days",
}  # fmt: skip
TIME_WORDS = {"time", "timestamp", "ts", "date", "datetime", "at", "dt", "day"}
# Times that belong to a user or an item, not to the row.
OTHER_TIME_WORDS = {
    "birth", "born", "signup", "registered", "created", "published", "updated", "joined", "first", "release", "upload",
}  # fmt: skip


def words(name: str) -> set[str]:
    """Lower-case words of a name: ``isClicked_7d`` → is, clicked, 7d."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return {word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word}


def is_id_name(name: str) -> bool:
    """Whether numbers under this name are names of things."""
    return bool(words(name) & ID_WORDS) or bool(re.search(r"(user|item|product|session|request|ad)_?id$", name.lower()))


def is_context_name(name: str) -> bool:
    """Whether a column under this name describes the occasion: ``hour``, ``device_type``."""
    return bool(words(name)) and words(name) - {"type", "id", "name", "of", "code"} <= CONTEXT_WORDS


def is_label_name(name: str) -> bool:
    """Whether a column of 0 and 1 under this name is an outcome."""
    return bool(words(name) & LABEL_WORDS) and not words(name) & PAST_WORDS


def is_state_name(name: str) -> bool:
    """Whether a column of 0 and 1 under this name is known beforehand: ``is_new``, ``clicked_before``."""
    return bool(words(name) & (PAST_WORDS | {"is", "has", "was"}))


def is_amount_name(name: str) -> bool:
    """Whether numbers under this name are an outcome."""
    return bool(words(name) & AMOUNT_WORDS) and not words(name) & PAST_WORDS


def feature_name(column: str) -> str:
    """The column's name with nothing in it that key paths or file names mind."""
    return re.sub(r"\W+", "_", column).strip("_") or "column"
