"""The recipe of a first model: sizes, rates and steps chosen from what the log holds."""

import json

MANY_VALUES = 100_000


def width(num_train: int) -> int:
    """Floats per row of a table."""
    return 16 if num_train >= 100_000 else 8


def min_count(num_distinct: int) -> int:
    """How often an id must occur in training to have a row of its own."""
    if num_distinct <= 1000:
        return 1
    return 5 if num_distinct > MANY_VALUES else 2


def tables_lines() -> list[str]:
    """The section ``tables``."""
    return [
        "# Embedding tables: the lr of the sparse optimizer matters most after the lr below.",
        "tables:",
        "  optimizer: {kind: rowwise_adagrad, lr: 0.05}",
    ]


def model_lines(num_train: int) -> list[str]:
    """The section ``model``."""
    hidden = "[256, 128]" if num_train >= 500_000 else "[64, 32]"
    dropout = "0.0" if num_train >= 500_000 else "0.1"
    return [
        "# Other kinds: shared_bottom, cgc, ple, … A new kind starts from its own defaults, with experts of",
        "# [256, 128]: give expert_hidden with it. Larger experts pay off with more rows.",
        "model:",
        f"  architecture: {{kind: mmoe, num_experts: {8 if num_train >= 100_000 else 4}, expert_hidden: {hidden}, "
        f"dropout: {dropout}}}",
        f"  towers: {{hidden: [{64 if num_train >= 500_000 else 32}], dropout: 0.0}}",
        "  unknown_share: 0.01    # Of the ids, hidden while training: so a new item or user gets a fair score.",
    ]


def training_lines(num_train: int, metric: str) -> list[str]:
    """The section ``training``."""
    epochs = 20 if num_train < 20_000 else 10 if num_train < 200_000 else 4 if num_train < 2_000_000 else 1
    # At least about fifty steps per epoch, so that small logs are learnt too.
    batch_size = 4096
    while batch_size > 32 and num_train // batch_size < 50:
        batch_size //= 2
    warmup = max(min(100, epochs * (num_train // batch_size) // 10), 1)
    return [
        "training:",
        f"  epochs: {epochs}",
        f"  batch_size: {batch_size}",
        "  dense_optimizer: {kind: adamw, lr: 0.001, weight_decay: 0.00001}",
        f"  schedule: {{kind: cosine, warmup_steps: {warmup}}}",
        "  clip_norm: 10.0",
        "  precision: auto",
        f"  early_stopping: {{metric: {json.dumps(metric)}, patience: 3}}    # Stops when validation gets no better.",
    ]
