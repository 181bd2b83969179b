"""The recipe of a first model: sizes, rates and steps chosen from what the log holds.

Found on small logs with rare outcomes, where a first model is easily worse than logistic regression. The linear part
learns five times as fast as the vectors, both by Adagrad per weight, so that a rare outcome moves its weights as much
as a frequent one; ``eps`` keeps the weights of ids that were seen once or twice near zero.
"""

FEW_ROWS = 500_000
MANY_ROWS = 2_000_000
MANY_VALUES = 1_000_000
STEPS_PER_EPOCH = 60
"""Steps that an epoch has at least, so that small logs are learned too."""
TABLE_EPS = 0.0005
"""Added to the root of the sum of squared gradients, in gradients of one row's loss. Ten times as much, and the vectors
below two levels of experts, whose gradients are small, never leave their initial values."""


def width(num_train: int) -> int:
    """Floats per row of a table."""
    return 8 if num_train < FEW_ROWS else 16


def min_count(num_distinct: int) -> int:
    """How often an id must occur in training to have a row of its own."""
    return 1 if num_distinct <= MANY_VALUES else 2


def batch_size(num_train: int) -> int:
    """Rows per step."""
    size = 4096
    while size > 64 and num_train // size < STEPS_PER_EPOCH:
        size //= 2
    return size


def tables_lines(num_train: int) -> list[str]:
    """The section ``tables``."""
    return [
        "# Embedding tables. rowwise_adagrad keeps one float of state per row, not one per weight, but learns rare",
        "# outcomes less well. eps is in units of a step's mean loss: double it for half the batch.",
        "tables:",
        f"  optimizer: {{kind: adagrad, lr: 0.01, eps: {TABLE_EPS / batch_size(num_train):.3g}}}",
    ]


def model_lines(num_train: int) -> list[str]:
    """The section ``model``."""
    is_large = num_train >= MANY_ROWS
    hidden = "[256, 128]" if is_large else "[64, 32]"
    dropout = "0.0" if is_large else "0.1"
    return [
        "# Other kinds: shared_bottom, cgc, ple, … A new kind starts from its own defaults, experts [256, 128]: give",
        "# expert_hidden with it (shared_bottom and single_task: hidden). Larger experts pay off with more rows.",
        "model:",
        f"  architecture: {{kind: mmoe, num_experts: {8 if is_large else 4}, expert_hidden: {hidden}, "
        f"dropout: {dropout}}}",
        f"  towers: {{hidden: [{64 if is_large else 32}], dropout: 0.0}}",
        "  wide: {kind: linear, rate: 5}    # A weight per id and number beside the experts: logistic regression.",
        "  unknown_share: auto              # Ids hidden while training: as many as are new in validation.",
    ]


def training_lines(num_train: int) -> list[str]:
    """The section ``training``."""
    epochs = 30 if num_train < 100_000 else 20 if num_train < FEW_ROWS else 8 if num_train < MANY_ROWS else 2
    steps_per_epoch = max(num_train // batch_size(num_train), 1)
    return [
        "training:",
        f"  epochs: {epochs}    # At most.",
        f"  batch_size: {batch_size(num_train)}",
        "  dense_optimizer: {kind: adamw, lr: 0.001, weight_decay: 0.00001}",
        f"  schedule: {{kind: cosine, warmup_steps: {max(min(100, epochs * steps_per_epoch // 10), 1)}}}",
        "  clip_norm: 10.0",
        "  precision: auto",
        "  # Stops when validation gets no better, and keeps the best checkpoint. score is the mean over all tasks.",
        "  early_stopping: {metric: score, patience: 3}",
    ]
