"""Loss functions with checked maths: torch-like functions, modules by name, one contract."""

from losses.arguments import (
    Bounds,
    ClassCounts,
    ClassWeight,
    Count,
    NonNegative,
    Parameter,
    Positive,
    Share,
)
from losses.classification import (
    bce,
    binary_focal,
    brier,
    cross_entropy,
    focal,
    multiclass_brier,
    multilabel_bce,
    multilabel_soft_margin,
    nll,
)
from losses.core import Fraction, Loss, LossModule, build, get, loss, names
from losses.divergence import jeffreys, jensen_shannon, kl, reverse_kl, skew_js, skew_kl
from losses.inputs import IGNORING
from losses.margin import (
    binary_perceptron,
    hinge,
    max_hinge,
    multiclass_hinge,
    multilabel_hinge,
    perceptron,
    soft_margin,
    squared_hinge,
)
from losses.penalty import (
    Penalty,
    PenaltyModule,
    build_penalty,
    elastic_net,
    get_penalty,
    l1,
    l2,
    penalised,
    penalty,
    penalty_names,
)
from losses.regression import (
    gaussian_nll,
    huber,
    log_cosh,
    mae,
    mse,
    msle,
    poisson_nll,
    pseudo_huber,
    quantile,
    rmse,
    smooth_l1,
)
from losses.source import code_hash, source_hash
from losses.weighting import class_weight, pos_weight
