"""What the name of a column says about it, in the words of click and conversion logs."""

import re

ID_WORDS = {
    "id", "ids", "key", "uuid", "guid", "hash", "code", "sku", "zip", "zipcode", "postcode", "category", "type",
    "categorical", "cat", "class", "segment", "seg", "cluster", "bucket", "brand", "customer", "shop", "seller",
    "store",
    "merchant", "advertiser", "publisher", "author", "artist", "creator", "tag", "city", "region", "country", "ip",
    "device", "os", "platform", "browser", "channel", "network", "app", "slot", "placement", "banner", "model", "tab",
    "carrier", "isp", "locale", "language", "referrer", "gender", "occupation", "music", "genre", "campaign",
}  # fmt: skip
# Numbers under these names are numbers, whatever their values look like.
NUMBER_WORDS = {
    "num", "number", "count", "cnt", "counts", "total", "sum", "avg", "mean", "min", "max", "rate", "ratio", "share",
    "price", "cost", "amount", "amt", "value", "score", "age", "year", "years", "month", "day", "days", "hour", "hours",
    "week", "weeks", "weekday", "minute", "minutes", "second", "seconds", "sec", "secs", "ms", "duration", "length",
    "len", "size", "width", "height", "weight", "distance", "dist", "rank", "position", "level", "freq",
    "frequency", "numerical", "numeric", "num_feature", "balance", "income", "salary", "wage", "quantity", "qty",
    "discount", "bid", "budget", "percent", "pct", "hourmin", "temperature", "stars", "rating", "views", "likes",
    "clicks",
    "gain", "gains", "loss", "losses", "dividends", "runtime", "population", "km", "worked",
    "history", "recency", "time", "sales", "stock",
}  # fmt: skip
USER_WORDS = {
    "user", "uid", "member", "customer", "viewer", "visitor", "account", "userid", "buyer", "reader", "reviewer",
    "reviewerid", "visitorid",
}  # fmt: skip
PLAIN_USER_WORDS = {"user", "uid", "userid", "visitor", "visitorid", "reviewer", "reviewerid", "member"}
ITEM_WORDS = {
    "item", "itemid", "product", "article", "sku", "video", "movie", "song", "track", "ad", "adid", "creative", "doc",
    "document", "hotel", "listing", "post", "candidate", "campaign", "book", "asin", "news", "offer", "feed", "note",
    "adgroup", "photo", "productid", "movieid", "videoid", "business", "recipe", "game", "job", "goods", "app",
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
    "slot", "connection", "locale", "language", "surface", "placement", "app", "ip", "tab",
    "hourmin",
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
    "replied", "repost", "reposted", "retweet", "retweeted", "donated", "hate", "hated", "forward", "forwarded",
    "enter", "entered", "attributed", "activate", "activated", "activation", "bind", "cancel", "apply", "approved",
    "longview", "purchases", "orders",
    "conversions", "installs", "bookings", "transactions", "addtocart",
    "transaction", "registered", "default", "defaulted", "clickout",
}  # fmt: skip
AMOUNT_WORDS = {"spend", "spent", "revenue", "gmv", "ltv"}
RATING_WORDS = {"rating", "ratings", "stars", "star", "overall", "score", "grade", "vote", "stars_given"}
# What somebody does with an item for some time …
ATTENTION_WORDS = {
    "watch", "watched", "watching", "play", "played", "playing", "view", "viewed", "viewing", "dwell", "dwelling",
    "stay", "stayed", "listen", "listened", "listening", "read", "reading", "spent", "engage", "engaged", "engagement",
    "consumed", "consumption", "completion", "progress", "attention", "visible", "exposure", "on",
}  # fmt: skip
# … and how long it takes.
MEASURE_WORDS = {
    "time", "times", "ms", "millis", "milliseconds", "sec", "secs", "second", "seconds", "s", "min", "mins", "minutes",
    "duration", "length", "ratio", "percent", "percentage", "pct", "progress", "fraction", "share", "rate",
}  # fmt: skip
ATTENTION_NAMES = {
    "dwell", "watchtime", "playtime", "dwelltime", "staytime", "viewtime", "listentime", "readtime", "watchratio",
    "playduration", "watchduration", "playseconds", "viewseconds", "watchseconds", "watchedtime", "timespent",
}  # fmt: skip
# What 0 and 1 say of a user, an item or the moment, and no outcome.
STATE_WORDS = {
    "new", "top", "first", "weekend", "holiday", "mobile", "logged", "login", "member", "premium", "vip", "promoted",
    "sponsored", "ad", "active", "organic", "male", "female", "adult", "verified", "available", "free", "sale", "prime",
    "discounted", "local", "recommended", "personalized", "bot", "rand", "random", "night", "morning", "workday",
    "original",
}  # fmt: skip
LOGGING_POLICY_WORDS = {"propensity", "pscore", "propensities"}
POSITION_WORDS = {"position", "pos", "rank", "impression_position"}
# References to other items: last_item, next_video.
NEIGHBOUR_WORDS = {"last", "prev", "previous", "next", "recent", "similar", "clicked", "viewed", "bought", "seen"}
# A count of earlier clicks is a feature, whatever else the name says.
PAST_WORDS = {
    "num", "count", "cnt", "total", "avg", "mean", "past", "prior", "prev", "previous", "last", "hist", "history",
    "before", "ever", "rate", "ctr", "cvr", "recent", "7d", "14d", "30d", "1d", "days",
}  # fmt: skip
TIME_WORDS = {
    "time",
    "timestamp",
    "ts",
    "date",
    "datetime",
    "at",
    "dt",
    "day",
    "hour",
    "hourmin",
    "unixtime",
    "timestamps",
}
# Times that belong to a user or an item, not to the row.
OTHER_TIME_WORDS = {
    "birth", "born", "signup", "registered", "created", "published", "updated", "joined", "first", "release", "upload",
}  # fmt: skip


# Words of names in which no blank parts them.
TRANSLATIONS = {
    "点击": "click", "购买": "purchase", "下单": "order", "收藏": "favorite", "加购": "cart", "转化": "conversion",
    "点赞": "like", "分享": "share", "关注": "follow", "评论": "comment", "用户": "user", "商品": "item",
    "物品": "item", "视频": "video", "时间": "time", "日期": "date", "时长": "duration", "播放": "play",
    "观看": "watch", "停留": "stay", "评分": "rating", "价格": "price", "编号": "id", "请求": "request",
    "会话": "session", "年龄": "age", "城市": "city",
}  # fmt: skip

# Whole words, none of which means something else in English.
GERMAN = {
    "nutzer": "user", "benutzer": "user", "kunde": "customer", "kunden": "customer", "besucher": "visitor",
    "mitglied": "member", "mitglieds": "member", "konto": "account", "käufer": "buyer", "artikel": "item",
    "produkt": "product", "anzeige": "ad", "anzeigen": "ad", "angebot": "offer", "angebots": "offer",
    "beitrag": "post", "beitrags": "post", "anfrage": "request", "anfragen": "request", "suche": "search",
    "sitzung": "session", "sitzungs": "session", "liste": "list",
    "klick": "click", "klicks": "clicks", "geklickt": "clicked", "angeklickt": "clicked", "kauf": "purchase",
    "käufe": "purchases", "gekauft": "purchased", "bestellt": "ordered", "bestellung": "order",
    "bestellungen": "orders", "gebucht": "booked", "buchung": "booking", "warenkorb": "cart", "besuch": "visit",
    "besucht": "visited", "gesehen": "watched", "angesehen": "watched", "gehört": "played", "gespielt": "played",
    "gemerkt": "saved", "geteilt": "shared", "gemocht": "liked", "gefällt": "liked", "gekündigt": "churned",
    "umsatz": "revenue", "bewertung": "rating", "sterne": "stars", "preis": "price", "kosten": "cost",
    "betrag": "amount", "menge": "quantity", "rabatt": "discount", "anzahl": "count", "dauer": "duration",
    "sek": "sec", "sekunden": "seconds", "minuten": "minutes", "stunde": "hour", "wochentag": "weekday",
    "monat": "month", "jahr": "year", "zeit": "time", "zeitpunkt": "time", "zeitstempel": "timestamp",
    "datum": "date", "gerät": "device", "kategorie": "category", "marke": "brand", "händler": "seller",
    "sprache": "language", "stadt": "city", "geschlecht": "gender", "nr": "id", "nummer": "id", "kennung": "id",
}  # fmt: skip
_GERMAN_ID = re.compile(r"(.+?)(?:nummer|nr|kennung|id)")


def words(name: str) -> set[str]:
    """Lower-case words of a name: ``isClicked_7d`` → is, clicked, 7d; 用户id and Nutzer-Nr → user, id."""
    for word, translation in TRANSLATIONS.items():
        name = name.replace(word, f" {translation} ")
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return {known for word in re.split(r"[\W_]+", spaced) if word for known in _translated(word.lower())}


def _translated(word: str) -> set[str]:
    """A word in English: geklickt → clicked, artikelnummer → item, id."""
    compound = _GERMAN_ID.fullmatch(word)
    if compound is not None and compound[1] in GERMAN:
        return {GERMAN[compound[1]], "id"}
    return {GERMAN.get(word, word)}


def is_id_name(name: str) -> bool:
    """Whether numbers under this name are names of things."""
    found = words(name)
    if found & NUMBER_WORDS and not found & {"id", "ids"}:
        return False
    is_letter_and_number = bool(re.fullmatch(r"C\d{1,2}", name))
    return bool(found & ID_WORDS) or is_letter_and_number or _ends_in_id(name)


def _ends_in_id(name: str) -> bool:
    return bool(
        re.search(r"(user|item|product|session|request|ad|group|seg|movie|video|visitor|reviewer)_?id$", name.lower())
    )


def is_number_name(name: str) -> bool:
    """Whether numbers under this name are numbers."""
    return bool(words(name) & (NUMBER_WORDS | PAST_WORDS))


def is_attention_name(name: str) -> bool:
    """Whether numbers under this name say how long an item was watched, read or stayed with."""
    found = words(name)
    if found & (PAST_WORDS - {"rate"}):
        return False
    return bool(found & ATTENTION_NAMES) or bool(found & ATTENTION_WORDS and found & MEASURE_WORDS)


def is_rating_name(name: str) -> bool:
    """Whether a small scale under this name is what somebody thinks of an item."""
    return bool(words(name) & RATING_WORDS) and not words(name) & PAST_WORDS


def is_context_name(name: str) -> bool:
    """Whether a column under this name describes the occasion: ``hour``, ``device_type``."""
    return bool(words(name)) and words(name) - {"type", "id", "name", "of", "code"} <= CONTEXT_WORDS


def is_label_name(name: str) -> bool:
    """Whether a column of 0 and 1 under this name is an outcome."""
    return bool(words(name) & LABEL_WORDS) and not words(name) & PAST_WORDS


def is_state_name(name: str) -> bool:
    """Whether a column of 0 and 1 under this name is known beforehand: ``is_new``, ``clicked_before``."""
    return bool(words(name) & (PAST_WORDS | STATE_WORDS))


def is_amount_name(name: str) -> bool:
    """Whether numbers under this name are an outcome."""
    return bool(words(name) & AMOUNT_WORDS) and not words(name) & PAST_WORDS


def feature_name(column: str) -> str:
    """The column's name with nothing in it that key paths, file names or formulas mind."""
    kept = "".join(letter if ("_" + letter).isidentifier() else "_" for letter in column)
    return re.sub(r"__+", "_", kept).strip("_") or "column"
