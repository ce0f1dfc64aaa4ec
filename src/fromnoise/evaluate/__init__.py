"""Measuring: distances, classifiers, likelihood, and the report that shows them."""

from fromnoise.evaluate.calibration import Calibrated, Calibration, calibrate
from fromnoise.evaluate.classify import classifier_accuracy, label_accuracy
from fromnoise.evaluate.distances import (
    Manifolds,
    copies,
    frechet_distance,
    frechet_from_moments,
    kid,
    manifolds,
    nearest,
    nearest_train_distance,
)
from fromnoise.evaluate.elbo import Evidence, evidence, measure_evidence
from fromnoise.evaluate.features import (
    FeatureNetwork,
    Features,
    PixelFeatures,
    ReaderSettings,
    restore,
    train_reader,
)
from fromnoise.evaluate.html import Page, Picture, figure_text, report_html
from fromnoise.evaluate.intervals import Estimate, wilson
from fromnoise.evaluate.likelihood import bits_per_dim, dequantise, discretised_log_likelihood
from fromnoise.evaluate.masked import measure_tokens
from fromnoise.evaluate.ode import (
    FlowLikelihood,
    LostFlow,
    OdeSettings,
    flow_bits_per_dim,
    lifted_bits_per_dim,
    log_likelihood,
)
from fromnoise.evaluate.pictures import line_plot, loss_curves, quality_curve
from fromnoise.evaluate.report import (
    FLOW,
    KEYS,
    Evaluation,
    Labelled,
    Likelihoods,
    evaluate,
    measure,
    measure_labels,
    measure_likelihood,
)
from fromnoise.evaluate.variances import VARIANCES, Variance, variance
from fromnoise.evaluate.vlb import Bound, variational_bound

__all__ = [
    "FLOW",
    "KEYS",
    "VARIANCES",
    "Bound",
    "Calibrated",
    "Calibration",
    "Estimate",
    "Evaluation",
    "Evidence",
    "FeatureNetwork",
    "Features",
    "FlowLikelihood",
    "Labelled",
    "Likelihoods",
    "LostFlow",
    "Manifolds",
    "OdeSettings",
    "Page",
    "Picture",
    "PixelFeatures",
    "ReaderSettings",
    "Variance",
    "bits_per_dim",
    "calibrate",
    "classifier_accuracy",
    "copies",
    "dequantise",
    "discretised_log_likelihood",
    "evaluate",
    "evidence",
    "figure_text",
    "flow_bits_per_dim",
    "frechet_distance",
    "frechet_from_moments",
    "kid",
    "label_accuracy",
    "lifted_bits_per_dim",
    "line_plot",
    "log_likelihood",
    "loss_curves",
    "manifolds",
    "measure",
    "measure_evidence",
    "measure_labels",
    "measure_likelihood",
    "measure_tokens",
    "nearest",
    "nearest_train_distance",
    "quality_curve",
    "report_html",
    "restore",
    "train_reader",
    "variance",
    "variational_bound",
    "wilson",
]
