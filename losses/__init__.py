"""Loss functions with checked maths: torch-like functions, modules by name, one contract."""

from losses.arguments import Bounds, ClassWeight, Count, NonNegative, Parameter, Positive, Share
from losses.core import Fraction, Loss, LossModule, build, get, loss, names
from losses.penalty import Penalty, PenaltyModule, build_penalty, penalised, penalty, penalty_names

from losses.classification import bce, cross_entropy, focal  # isort: skip
from losses.penalty import elastic_net, l1, l2
from losses.regression import mae, mse
