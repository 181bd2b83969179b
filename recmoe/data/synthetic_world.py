"""SyntheticWorld: the users and items of a synthetic log, and what truly decides their clicks and purchases."""

# U users, I items, N rows, K latent width

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NUM_USERS = 2000
NUM_ITEMS = 1000
NUM_CATEGORIES = 16
NUM_BRANDS = 50
LATENT_WIDTH = 2
CLICK_RATE = 0.12
PURCHASE_RATE = 0.15
"""Purchases per click."""


class SyntheticWorld:
    """Who there is, and three formulas.

    ===========  =====================================================================================
    task         what its true value depends on
    ===========  =====================================================================================
    click        position, item, user's interests × item (latent vectors), price (dear things look good)
    purchase     price against the user's budget (plan, age), brand, hour, user and item a little
    seconds      duration of the item, category, device, hour, plan, user a little
    ===========  =====================================================================================
    """

    plan_names = np.array(["free", "basic", "premium"])
    watch_sigma = 0.6
    """Standard deviation of the log of the seconds watched, given everything that is known."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self._user_share_U = _zipf(rng, NUM_USERS, exponent=0.5)
        self._item_share_I = _zipf(rng, NUM_ITEMS, exponent=0.7)
        self._make_items(rng)
        self._make_users(rng)
        self._set_rates(rng)

    def draw_users(self, rng: np.random.Generator, num: int) -> Ints:
        """Users of requests, the frequent ones more often."""
        return rng.choice(NUM_USERS, size=num, p=self._user_share_U)

    def draw_items(self, rng: np.random.Generator, num: int, num_candidates: int) -> Ints:
        """Different items for each request, the popular ones more often: [num, num_candidates]."""
        cumulative_I = np.cumsum(self._item_share_I)
        cumulative_I[-1] = 1.0
        item_RC = np.searchsorted(cumulative_I, rng.random((num, num_candidates)), side="right")
        while True:
            order_RC = np.argsort(item_RC, axis=1, kind="stable")
            sorted_RC = np.take_along_axis(item_RC, order_RC, axis=1)
            is_twice_RC = np.zeros(item_RC.shape, dtype=bool)
            np.put_along_axis(is_twice_RC, order_RC[:, 1:], sorted_RC[:, 1:] == sorted_RC[:, :-1], axis=1)
            num_twice = int(is_twice_RC.sum())
            if not num_twice:
                return item_RC
            item_RC[is_twice_RC] = np.searchsorted(cumulative_I, rng.random(num_twice), side="right")

    def click_logit(self, user_N: Ints, item_N: Ints, position_N: Ints, price_N: Floats) -> Floats:
        taste_N = np.einsum("nk,nk->n", self._taste_UK[user_N], self._style_IK[item_N])
        return np.asarray(
            self._click_bias
            - 0.9 * np.log(position_N)
            + self.quality_I[item_N]
            + 1.4 * taste_N
            + self._activity_U[user_N]
            + 0.5 * (np.log(price_N) - 3.2)
        )

    def purchase_logit(self, user_N: Ints, item_N: Ints, price_N: Floats, hour_N: Ints) -> Floats:
        gap_N = np.log(price_N) - self._log_budget_U[user_N]
        return np.asarray(
            self._purchase_bias
            - 1.2 * np.maximum(gap_N, 0.0) ** 1.5
            - 0.5 * np.abs(gap_N)
            + self._brand_pull_I[item_N]
            + self._fit_I[item_N]
            + 0.6 * np.cos((hour_N - 20) / 24 * 2 * np.pi)
        )

    def watch_log_seconds(self, user_N: Ints, item_N: Ints, device_N: Ints, hour_N: Ints) -> Floats:
        return np.asarray(
            0.8
            + 0.6 * np.log(self.duration_I[item_N])
            + self._category_hold_I[item_N]
            + np.array([0.0, 0.5, 0.2])[device_N]
            + np.array([0.0, 0.2, -0.4])[self.plan_U[user_N]]
            - 0.4 * np.cos((hour_N - 8) / 24 * 2 * np.pi)
            + self._patience_U[user_N]
        )

    def _make_items(self, rng: np.random.Generator) -> None:
        self.category_I = rng.choice(NUM_CATEGORIES, size=NUM_ITEMS, p=_zipf(rng, NUM_CATEGORIES, exponent=0.6))
        self.brand_I = rng.choice(NUM_BRANDS, size=NUM_ITEMS, p=_zipf(rng, NUM_BRANDS, exponent=0.8))
        centre_CK = rng.normal(0.0, 1.0, (NUM_CATEGORIES, LATENT_WIDTH))
        # Off the origin: some categories please more people than others, which gives learning a foothold.
        self._centre_CK = centre_CK / np.linalg.norm(centre_CK, axis=1, keepdims=True) + 0.5
        self._style_IK = self._centre_CK[self.category_I] + rng.normal(0.0, 0.1, (NUM_ITEMS, LATENT_WIDTH))
        self.quality_I = rng.normal(0.0, 0.6, NUM_ITEMS)
        # What draws the eye is seldom what is bought.
        self._fit_I = -0.3 * self.quality_I + rng.normal(0.0, 0.15, NUM_ITEMS)
        self._brand_pull_I = rng.normal(0.0, 0.8, NUM_BRANDS)[self.brand_I]
        category_price = rng.normal(3.2, 0.7, NUM_CATEGORIES)
        self.log_price_I = category_price[self.category_I] + rng.normal(0.0, 0.5, NUM_ITEMS)
        self.duration_I = np.round(np.exp(rng.normal(4.0, 0.8, NUM_ITEMS))).clip(5, 3600)
        self._category_hold_I = rng.normal(0.0, 0.4, NUM_CATEGORIES)[self.category_I]

    def _make_users(self, rng: np.random.Generator) -> None:
        self.age_U = rng.integers(16, 76, NUM_USERS)
        self.is_age_missing_U = rng.random(NUM_USERS) < 0.03
        self.plan_U = rng.choice(3, size=NUM_USERS, p=[0.6, 0.25, 0.15])
        num_interests_U = rng.integers(1, 5, NUM_USERS)
        interest_UJ = np.argsort(rng.random((NUM_USERS, NUM_CATEGORIES)), axis=1)[:, :4]
        is_kept_UJ = np.arange(4) < num_interests_U[:, None]
        names = np.array([f"c{category}" for category in range(NUM_CATEGORIES)])
        offsets = np.concatenate([[0], np.cumsum(num_interests_U)])
        self.interests_U = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names[interest_UJ[is_kept_UJ]])
        centre_UJK = self._centre_CK[interest_UJ] * is_kept_UJ[:, :, None]
        self._taste_UK = centre_UJK.sum(axis=1) / num_interests_U[:, None] + rng.normal(
            0.0, 0.1, (NUM_USERS, LATENT_WIDTH)
        )
        self._activity_U = rng.normal(0.0, 0.15, NUM_USERS)
        self._patience_U = rng.normal(0.0, 0.15, NUM_USERS)
        # A missing age says nothing about the budget: what is unknown to a model must not decide.
        age_part_U = np.where(self.is_age_missing_U, 0.0, 0.6 * np.sin((self.age_U - 16) / 60 * np.pi) - 0.3)
        self._log_budget_U = np.array([2.4, 3.2, 4.2])[self.plan_U] + age_part_U + rng.normal(0.0, 0.15, NUM_USERS)

    def _set_rates(self, rng: np.random.Generator) -> None:
        """Choose the two constants that give the rates of clicks and of purchases after them."""
        self._click_bias = self._purchase_bias = 0.0
        num = 20_000
        user_N = self.draw_users(rng, num)
        item_N = self.draw_items(rng, num, 1)[:, 0]
        price_N = np.exp(self.log_price_I[item_N])
        click_N = self.click_logit(user_N, item_N, rng.integers(1, 11, num), price_N)
        self._click_bias = _bias(click_N, np.ones(num), CLICK_RATE)
        weight_N = 1.0 / (1.0 + np.exp(-click_N - self._click_bias))
        purchase_N = self.purchase_logit(user_N, item_N, price_N, rng.integers(0, 24, num))
        self._purchase_bias = _bias(purchase_N, weight_N, PURCHASE_RATE)


def _zipf(rng: np.random.Generator, num: int, *, exponent: float) -> Floats:
    """Shares that fall with the rank as rank^-exponent, in random order of the ids."""
    share = np.arange(1, num + 1) ** -exponent
    return np.asarray(rng.permutation(share / share.sum()))


def _bias(logit_N: Floats, weight_N: Floats, rate: float) -> float:
    """The constant that makes the weighted mean of sigmoid(logit + constant) a given rate, by bisection."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = float(np.average(1.0 / (1.0 + np.exp(-logit_N - middle)), weights=weight_N))
        low, high = (middle, high) if mean < rate else (low, middle)
    return (low + high) / 2
