"""event_log_advice: what to do with a log that has a row per event, not per impression."""

from recmoe.onboarding import column_names as names
from recmoe.onboarding.profile import ColumnProfile, LogProfile
from recmoe.onboarding.values import is_text

EVENT_NAMES = {
    "pv", "view", "click", "cart", "fav", "buy", "purchase", "addtocart", "add_to_cart", "transaction", "order",
    "favorite", "collect", "like", "share", "remove_from_cart", "impression", "clk", "play", "skip", "pageview",
}  # fmt: skip
BEHAVIOUR_WORDS = {"behavior", "behaviour", "event", "action", "interaction", "activity"}


def behaviour_column(log: LogProfile) -> ColumnProfile | None:
    """The column that says what happened: a few texts, most of them names of behaviours."""
    for column in log.columns.values():
        if not is_text(column.type) or not column.tally or len(column.tally) < 2:
            continue
        values = {str(value).lower() for value in column.tally if value != ""}
        num_known = sum(value in EVENT_NAMES for value in values)
        if num_known >= 2 and 2 * num_known >= len(values):
            return column
        if names.words(column.name) & BEHAVIOUR_WORDS and len(values) <= 20:
            return column
    return None


def event_log_advice(log: LogProfile) -> str:
    """How to make rows with a column per behaviour; empty where the log has no behaviours."""
    column = behaviour_column(log)
    if column is None:
        return ""
    assert column.tally is not None
    values = ", ".join(str(value) for value in column.tally if value != "")
    return (
        f". This is a log of events: {column.name} says what happened ({values}). A model needs a row per user and "
        "item that was shown, with a column of 0 and 1 for each behaviour. Such rows per day, with pandas: "
        f"day = frame[TIME].dt.date; pd.crosstab([frame[USER], frame[ITEM], day], frame[{column.name!r}])"
        ".clip(upper=1).reset_index().to_parquet('rows.parquet')"
    )
