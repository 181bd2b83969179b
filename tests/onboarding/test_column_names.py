"""What names of columns say, in three languages."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from recmoe.onboarding.column_names import is_label_name, words
from recmoe.onboarding.starter import StarterConfig

NUM_ROWS = 2000

MakeLog = Callable[..., pa.Table]
Start = Callable[..., StarterConfig]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("isClicked_7d", {"is", "clicked", "7d"}),
        ("用户id", {"user", "id"}),
        ("Nutzer-Nr", {"user", "id"}),
        ("Artikelnummer", {"item", "id"}),
        ("SITZUNGS_ID", {"session", "id"}),
        ("KundenNr", {"customer", "id"}),
        ("gesehen (Sek.)", {"watched", "sec"}),
        # Words that only begin or end like German ones.
        ("paid", {"paid"}),
        ("suchard", {"suchard"}),
        ("aspect_kaufmann", {"aspect", "kaufmann"}),
    ],
)
def test_words_of_a_name_are_known_in_three_languages(name: str, found: set[str]) -> None:
    assert words(name) == found


def test_count_of_earlier_purchases_is_no_outcome_by_its_name() -> None:
    assert is_label_name("gekauft")
    assert not is_label_name("Anzahl Käufe")


def test_german_log_is_understood(plain_log: MakeLog, start: Start) -> None:
    german = {
        "request_id": "Anfrage-Nr",
        "user_id": "Nutzer-Nr",
        "item_id": "Artikelnummer",
        "device": "Gerät 📱",
        "price": "Preis\n(EUR)",
        "click": "geklickt",
        "purchase": "gekauft",
    }
    log = plain_log(click=np.where(np.arange(NUM_ROWS) % 3 == 0, "Y", "N"), purchase=None)
    log = log.append_column("watch", pa.array(np.arange(NUM_ROWS) % 3 * 7.5))
    german["watch"] = "gesehen (Sek.)"

    roles = start(log.rename_columns([german.get(name, name) for name in log.column_names])).roles

    assert (roles.group, roles.user, roles.item) == ("Anfrage-Nr", "Nutzer-Nr", "Artikelnummer")
    assert roles.is_group_a_list
    assert {label.column for label in roles.labels} == {"geklickt", "gesehen (Sek.)"}
    assert {feature.column for feature in roles.features} == {
        *("Nutzer-Nr", "Artikelnummer", "Gerät 📱", "Preis\n(EUR)"),
    }
