"""ServedStores: the stores of items and users that a server has open; StoreWatch: puts new ones in their place."""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch

from recmoe.errors import DataError, RecmoeError, StoreError
from recmoe.ranking.items import RowStore, open_store
from recmoe.ranking.items.redis_store import RedisReading
from recmoe.ranking.items.store import StoredSide
from recmoe.ranking.look_ups import StoreName
from recmoe.ranking.ranker import Ranker
from serving.models.holder import ServedModels
from serving.settings import ServeSettings
from serving.store_metrics import StoreMetrics

_logger = logging.getLogger(__name__)

_CLOSE_S = 5.0
"""Seconds that a look under way gets at the end."""
_SIDES: Mapping[StoreName, StoredSide] = {"items": "item", "users": "user"}


class ServedStores:
    """Opened once, and shared by all models of a process.

    Args:
        settings: where they are, and how they are read.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self.known_bytes = settings.items_known_bytes
        """See ``Ranker.with_stores``."""
        self._open: dict[StoreName, RowStore] = {}
        self._lock = threading.Lock()

    def get(self) -> dict[StoreName, RowStore]:
        """Those that the settings name; raises what ``open_store`` does where one has to be opened."""
        settings = self._settings
        reading = RedisReading(
            timeout_s=settings.store_timeout_ms / 1000,
            cache_bytes=settings.store_cache_bytes,
            cache_s=settings.store_cache_s,
            away=settings.store_away,
        )
        addresses: dict[StoreName, str | None] = {"items": settings.items, "users": settings.users}
        with self._lock:
            for name, address in addresses.items():
                if address is not None and name not in self._open:
                    self._open[name] = open_store(address, _SIDES[name], reading)
            return dict(self._open)

    def put(self, name: StoreName, store: RowStore) -> None:
        """Let the models to come look in this one."""
        with self._lock:
            self._open[name] = store


class StoreWatch:
    """Looks every ``watch_s`` seconds whether a new store lies in the place of one that is open; has a thread for that.

    A new store is proved by the champion, then every model gets it: each is replaced by one assignment, so that a
    request never meets two. A store that cannot be used is refused, and not tried again with this champion; what does
    not answer is tried again at the next look.

    Args:
        stores: that are open.
        models: which look in them; the champion is there.
        metrics: by store.
        prove: raises where a champion cannot take the place of the one before.
        turn: is held while a store is loaded, so that one worker does after the other.
    """

    def __init__(
        self,
        stores: ServedStores,
        models: ServedModels,
        *,
        metrics: Mapping[StoreName, StoreMetrics],
        watch_s: float,
        prove: Callable[[Ranker], None] = lambda _: None,
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        self._stores, self._models, self._metrics, self._watch_s = stores, models, metrics, watch_s
        self._prove, self._turn = prove, turn or nullcontext()
        self._refused: set[tuple[str, bytes]] = set()
        """Digests of models, and stores that they cannot use."""
        self._trouble: dict[StoreName, str | None] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stores", daemon=True)

    def start(self) -> None:
        """Look every so often."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def look(self) -> None:
        """Look once."""
        for name, store in self._stores.get().items():
            try:
                latest = store.latest()
                if latest != store.identity and (self._models.get().info.digest, latest) not in self._refused:
                    with self._turn:
                        self._take(name, store, latest)
                self._give(name)
                self._metrics[name].refuses(latest != self._stores.get()[name].identity)
            except (StoreError, DataError, OSError) as error:
                self._metrics[name].swap("failed")
                self._tell_trouble(name, str(error))
            except Exception:
                # Whatever it is, the next look may do better, and requests are answered meanwhile.
                self._metrics[name].swap("failed")
                _logger.exception("the store of %s could not be followed", name)
            else:
                self._tell_trouble(name, None)

    def _run(self) -> None:
        # Loading must not take the cores of those who rank.
        torch.set_num_threads(1)
        while not self._closed.wait(self._watch_s):
            self.look()

    def _take(self, name: StoreName, before: RowStore, latest: bytes) -> None:
        """Let the champion look in a new store, unless it is refused."""
        champion = self._models.get()
        try:
            store = before.reopened()
            made = self._made(name, champion, store)
            self._prove(made)
        except StoreError:
            raise
        except Exception as error:
            self._refused.add((champion.info.digest, latest))
            self._metrics[name].swap("refused")
            reason = str(error) if isinstance(error, RecmoeError) else f"{type(error).__name__}: {error}"
            _logger.error("the new store of %s is refused, the one before stays: %s", name, reason)
            return
        self._stores.put(name, store)
        self._models.replace(champion, made)
        self._metrics[name].swap("loaded")
        _logger.info("%s: %d rows of %s are looked up from now on", name, store.num_rows, store.where)

    def _give(self, name: StoreName) -> None:
        """Let all models look in the store that is open."""
        store = self._stores.get()[name]
        for ranker in self._models.every():
            stored = getattr(ranker, name)
            key = ranker.info.digest, store.identity
            if (stored is not None and stored.store is store) or key in self._refused:
                continue
            try:
                self._models.replace(ranker, self._made(name, ranker, store))
            except StoreError:
                raise
            except Exception as error:
                self._refused.add(key)
                _logger.warning("version %s keeps the store of %s before: %s", ranker.info.version, name, error)

    def _made(self, name: StoreName, ranker: Ranker, store: RowStore) -> Ranker:
        if name == "users":
            return ranker.with_stores(users=store)
        return ranker.with_stores(items=store, items_known_bytes=self._stores.known_bytes)

    def _tell_trouble(self, name: StoreName, trouble: str | None) -> None:
        """Log what keeps a store from being followed, once, and that it has passed."""
        if trouble == self._trouble.get(name):
            return
        self._trouble[name] = trouble
        if trouble is None:
            _logger.warning("the store of %s can be looked at again", name)
        else:
            _logger.warning("the store of %s cannot be looked at, what is known of it is used: %s", name, trouble)
