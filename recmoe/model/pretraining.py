"""PretrainingConfig and PretrainingModel: a model that learns without labels, by ids that are hidden from it.

An id of a row is hidden with some probability, and guessed from what is left of the row, as words are in BERT (Devlin
et al., NAACL 2019, https://arxiv.org/abs/1810.04805, section 3.1). That tables and networks of a click model gain by
it is shown by MAP (Lin et al., KDD 2023, https://arxiv.org/abs/2308.01737, "masked feature prediction"; read as its
abstract), which tells the true id from drawn ones. Here ids of a large table share classes by their row, as in MACH
(Medini et al., NeurIPS 2019, https://arxiv.org/abs/1910.13830, with one hash; read as its abstract): a cross-entropy
over some classes needs no second look-up of the table that is trained.
"""

# B rows, K sparse keys, F hidden features, H width of all representations of a row, C classes of a feature, K' logits

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.architectures.local_experts import LocalExperts
from recmoe.architectures.seam import Model, Outputs
from recmoe.config import Config
from recmoe.embeddings.tables import member_name
from recmoe.errors import ConfigError
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey
from recmoe.model.balance_losses import BalanceTerms, balance_losses, with_balance
from recmoe.model.draws import generator_of
from recmoe.model.ranker import MultiTaskRanker
from recmoe.model.row_ids import id_key, id_places
from recmoe.moe.balance.alarms import RoutingWatch
from recmoe.moe.gates.gate import Distils, LearnsByPolicy

NOT_GUESSED = -100
"""In place of the class of an id that is not hidden, missing or unknown."""


class PretrainingConfig(Config):
    """What is hidden and guessed; a config with this section trains without labels (``recmoe pretrain``)."""

    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Probability with which an id of a row is hidden."""
    features: tuple[str, ...] = ()
    """Features with one id a row that are hidden; by default all whose column no other feature reads."""
    max_classes: PositiveInt = 1024
    """Classes among which the id of a feature is guessed, at most; ids of a larger table share them."""


class ReadOut(nn.Module):
    """Stands in the place of a tower: keeps the representation that the tower would read, and gives logits of 0."""

    def __init__(self, *, in_features: int, num_logits: int) -> None:
        super().__init__()
        self.in_features = in_features
        self._num_logits = num_logits
        self._h_BH: Tensor | None = None

    def forward(self, h_BH: Tensor) -> Tensor:
        """logits_BK'."""
        self._h_BH = h_BH
        return h_BH.new_zeros(len(h_BH), self._num_logits)

    def take(self) -> Tensor:
        """h_BH of the last rows, once."""
        h_BH, self._h_BH = self._h_BH, None
        assert h_BH is not None, "the model has read no rows since"
        return h_BH


class PretrainingModel(nn.Module):
    """What the training loop steps where there are no labels. The loss is::

        1/F · Σ_f Σ_b [id f of row b is hidden] · −log softmax(W_f · h[b] + c_f)[class of the id] / (B · share)

    with the balance terms of the config added. h is what the model gives all its towers, side by side: the loss moves
    the gates and experts of every task. Missing and unknown ids are not guessed.

    Args:
        ranker: has ``ReadOut`` in the place of towers.
        layout: of the encoder.
        features: F of them, each with one id a row.
        config: how many ids are hidden, and among how many classes they are guessed.
        balance: terms by name.
        balance_features: whose ids the terms read.
        seed: of the draws by which ids are hidden; another one in every process.
    """

    def __init__(
        self,
        *,
        ranker: MultiTaskRanker,
        layout: InputLayout,
        features: Sequence[str],
        config: PretrainingConfig,
        balance: BalanceTerms = MappingProxyType({}),
        balance_features: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.ranker = ranker
        self.features = tuple(features)
        self.balance = dict(balance)
        self.balance_features = tuple(balance_features)
        self.watch = RoutingWatch()
        """As of ``TrainingModel``."""
        self.share = config.share
        self._seed = seed
        self._read_outs = [module for module in ranker.model.modules() if isinstance(module, ReadOut)]
        num_rows = {table.name: table.num_rows for table in layout.tables}
        self._layout = layout
        self._keys: list[SparseKey] = []
        self.num_classes: list[int] = []
        """Per feature, C."""
        for name in self.features:
            key = id_key(layout, name)
            assert key is not None, "a layout of all sides has every feature"
            self._keys.append(key)
            # A table may hold the unknown row alone.
            self.num_classes.append(max(1, min(config.max_classes, num_rows[key.table] - 1)))
        width = sum(read_out.in_features for read_out in self._read_outs)
        self.heads = nn.ModuleDict(
            {
                member_name(name): nn.Linear(width, num_classes)
                for name, num_classes in zip(self.features, self.num_classes, strict=True)
            }
        )
        self.loss_names = (*(f"hidden.{name}" for name in self.features), *(f"balance.{name}" for name in self.balance))
        """What ``forward`` reports."""

    def prepare(self, batch: Batch, step: int) -> Batch:
        """A batch with a share of its ids hidden: they are row 0, and their classes are the labels.

        Which ones depends on seed and step alone.

        Args:
            step: of the training; below 0 for other draws.
        """
        device = batch.values.device
        values, labels = batch.values.clone(), []
        draws_FB = torch.rand(
            len(self.features), batch.num_rows, device=device, generator=generator_of(self._seed, step, device)
        )
        places = self._places(batch)
        for places_B, classes_B, draws_B in zip(places, self._classes(batch, places), draws_FB, strict=True):
            is_hidden_B = draws_B < self.share
            values.index_copy_(0, places_B, values.index_select(0, places_B).masked_fill(is_hidden_B, 0))
            labels.append(classes_B.masked_fill(~is_hidden_B, NOT_GUESSED).float())
        return replace(batch, values=values, labels_BL=torch.stack(labels, dim=1))

    def classes(self, batch: Batch) -> list[Tensor]:
        """Per hidden feature, int64 [B]: the class of the id of each row, ``NOT_GUESSED`` where it is row 0."""
        return self._classes(batch, self._places(batch))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss to minimise, and the losses by name; see ``loss_names``.

        Args:
            batch: as ``prepare`` gives it.
        """
        outputs, logits = self._read(batch)
        losses_F = torch.stack(
            [
                functional.cross_entropy(logits_BC, classes_B, ignore_index=NOT_GUESSED, reduction="sum")
                for logits_BC, classes_B in zip(logits, hidden_classes(batch), strict=True)
            ]
        ) / (batch.num_rows * self.share)
        # What only logits depend on takes part too: other workers would wait for its gradient.
        loss = losses_F.mean() + 0.0 * outputs.logits_BZ.float().sum()
        self.watch.see([*outputs.below(), *outputs.routing])
        terms_N = balance_losses(
            self.balance,
            outputs.routing,
            batch,
            layout=self.ranker.input_layer.layout,
            features=self.balance_features,
            device=loss.device,
        )
        loss = with_balance(loss, self.balance, terms_N)
        named = [losses_F.detach(), *([torch.stack(terms_N).detach()] if terms_N else [])]
        return loss, torch.cat(named)

    def guess(self, batch: Batch) -> list[Tensor]:
        """logits_BC of every hidden feature, for rows with hidden ids."""
        return self._read(batch)[1]

    def curves(self) -> Mapping[str, float]:
        """Nothing besides the losses."""
        return {}

    def _places(self, batch: Batch) -> list[Tensor]:
        """Per hidden feature, where the ids of its rows stand in the values of a batch."""
        return [id_places(batch, self._layout, key) for key in self._keys]

    def _classes(self, batch: Batch, places: Sequence[Tensor]) -> list[Tensor]:
        """What ``classes`` gives, where the places are known."""
        classes = []
        for places_B, num_classes in zip(places, self.num_classes, strict=True):
            ids_B = batch.values.index_select(0, places_B)
            classes.append(((ids_B - 1) % num_classes).masked_fill(ids_B == 0, NOT_GUESSED))
        return classes

    def _read(self, batch: Batch) -> tuple[Outputs, list[Tensor]]:
        rows = self.ranker.input_layer(batch)
        outputs = cast(Model, self.ranker.model)(rows.inputs)
        if rows.wide_BT is not None:
            outputs = outputs._replace(logits_BZ=outputs.logits_BZ + rows.wide_BT)
        h_BH = torch.cat([read_out.take() for read_out in self._read_outs], dim=1)
        return outputs, [head(h_BH).float() for head in self.heads.values()]


def check_learns_without_labels(model: nn.Module) -> None:
    """ConfigError for a model that hidden ids cannot teach.

    Args:
        model: of the ranker.
    """
    for module in model.modules():
        if isinstance(module, LocalExperts):
            raise ConfigError(
                "model.pretraining: experts of local_experts predict each by itself, and there is nothing that all of "
                "them guess ids from; choose another model.architecture, such as mmoe"
            )
        if isinstance(module, LearnsByPolicy | Distils):
            raise ConfigError(
                "model.pretraining: gates of kind policy and stable learn by losses of tasks, which are not there; "
                "choose another model.architecture.gate"
            )


def hidden_classes(batch: Batch) -> Sequence[Tensor]:
    """Per hidden feature of a batch with hidden ids, int64 [B]: the class, ``NOT_GUESSED`` where the id is not."""
    return batch.labels_BL.to(torch.int64).unbind(dim=1)
