"""Loss functions with checked maths: torch-like functions, modules by name, one contract."""

from losses.adversary import Adversary
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
from losses.boundary import border_weight, edge_distance, signed_distance
from losses.core import Fraction, Loss, get, loss, names
from losses.generative import gradient_penalty
from losses.inputs import IGNORING
from losses.module import LossModule, build
from losses.ordinal import Thresholds
from losses.penalty import (
    Penalty,
    PenaltyModule,
    build_penalty,
    get_penalty,
    penalised,
    penalty,
    penalty_names,
)
from losses.projection import (
    Projection,
    ProjectionRule,
    build_projection,
    get_projection,
    projection,
    projection_names,
)
from losses.restoration import Perceptual
from losses.sequence import perplexity
from losses.source import code_hash, source_hash
from losses.weighting import class_weight, pos_weight

# isort: split
# What follows is written by `python -m losses.docs --write`.
from losses.boundary import binary_boundary, boundary, cl_dice, hausdorff_dt, hausdorff_er
from losses.boxes import alpha_iou, ciou, diou, eiou, giou, iou, siou, unitbox
from losses.classification import (
    asymmetric,
    bce,
    binary_focal,
    brier,
    cross_entropy,
    focal,
    multiclass_brier,
    multilabel_bce,
    multilabel_soft_margin,
    nll,
    poly1,
)
from losses.distillation import distillation, dkd
from losses.divergence import jeffreys, jensen_shannon, kl, reverse_kl, skew_js, skew_kl
from losses.embedding import contrastive, cosine_embedding, triplet
from losses.generative import (
    gan_discriminator,
    gan_generator,
    gan_generator_saturating,
    hinge_discriminator,
    hinge_generator,
    lsgan_discriminator,
    lsgan_generator,
    vae_kl,
    wgan_critic,
    wgan_generator,
)
from losses.longtail import balanced_softmax, ldam, logit_adjusted
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
from losses.metric import batch_hard, circle, multi_similarity, sup_con
from losses.noise import bi_tempered, gce, symmetric_ce
from losses.ordinal import coral, corn
from losses.penalty import elastic_net, l1, l2
from losses.pixels import (
    asymmetric_unified_focal,
    balanced_bce,
    combo,
    lovasz,
    lovasz_hinge,
    sensitivity_specificity,
    squared_sensitivity_specificity,
    unified_focal,
)
from losses.policy import dapo, dr_grpo, grpo, policy_entropy, ppo_clip, ppo_value
from losses.pooled import batch_dice, binary_batch_dice
from losses.preference import dpo, ipo, kto, orpo, simpo
from losses.projection import clip_weights, max_norm, proximal_l1
from losses.proxy import (
    arcface,
    cosface,
    linear_softmax,
    normalised_softmax,
    proxy_anchor,
    proxy_nca,
)
from losses.quality import distribution_focal, quality_focal, varifocal
from losses.regression import (
    beta_nll,
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
    tweedie,
)
from losses.restoration import charbonnier, ms_ssim, ssim, total_variation
from losses.segmentation import (
    binary_dice,
    binary_focal_tversky,
    binary_jaccard,
    binary_tversky,
    dice,
    focal_tversky,
    generalised_dice,
    jaccard,
    log_cosh_dice,
    tversky,
)
from losses.sequence import ctc
from losses.views import barlow_twins, clip, learned_clip, nt_xent, siglip, vicreg
from losses.vocabulary import (
    adaptive_softmax,
    hierarchical_softmax,
    huffman_softmax,
    two_level_softmax,
)
