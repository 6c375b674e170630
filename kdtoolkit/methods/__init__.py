"""Ways to teach a student: one file a method, each a frozen dataclass of its hyper-parameters.

    student = training.Student(network, teacher, methods.KD(weight=0.9, temperature=4.0))
    student = training.Student(network, teacher, "kd+attention")

A method of your own is a subclass of `Method`, or of `LogitsMethod`, in any file; `register` gives
it a name everywhere, and `--methods=package.module:Class` uses it without.
"""

from kdtoolkit._checks import AT_LEAST_0, FRACTION, POSITIVE, ArgumentError, Interval, OneOf
from kdtoolkit.methods.attention import Attention
from kdtoolkit.methods.base import (
    Batch,
    Correction,
    LayersMethod,
    LogitsMethod,
    Method,
    Outputs,
    option,
    options,
)
from kdtoolkit.methods.cwtm import CWTM
from kdtoolkit.methods.dist import DIST
from kdtoolkit.methods.dkd import DKD
from kdtoolkit.methods.dkpp import DKPP
from kdtoolkit.methods.dynamic_temperature import Focal, StudentMax
from kdtoolkit.methods.embedding import Embedding
from kdtoolkit.methods.fitnet import FitNet
from kdtoolkit.methods.kd import KD
from kdtoolkit.methods.label_smooth import LabelSmooth
from kdtoolkit.methods.nkd import NKD
from kdtoolkit.methods.probability_shift import ProbabilityShift
from kdtoolkit.methods.registry import Methods, as_methods, described, get, names, parse, register
from kdtoolkit.methods.reviewkd import ReviewKD
from kdtoolkit.methods.rkd import RKD
from kdtoolkit.methods.rld import RLD
from kdtoolkit.methods.similarity import Similarity
from kdtoolkit.methods.standardize import Standardize
from kdtoolkit.methods.ttm import TTM, WTTM
from kdtoolkit.methods.ways import Way, parse_way

for _method in (
    KD,
    DKD,
    RLD,
    NKD,
    TTM,
    WTTM,
    DIST,
    DKPP,
    CWTM,
    FitNet,
    Attention,
    Embedding,
    ReviewKD,
    RKD,
    Similarity,
    Standardize,
    ProbabilityShift,
    LabelSmooth,
    Focal,
    StudentMax,
):
    register(_method)

__all__ = [
    "AT_LEAST_0",
    "CWTM",
    "DIST",
    "DKD",
    "DKPP",
    "FRACTION",
    "KD",
    "NKD",
    "POSITIVE",
    "RKD",
    "RLD",
    "TTM",
    "WTTM",
    "ArgumentError",
    "Attention",
    "Batch",
    "Correction",
    "Embedding",
    "FitNet",
    "Focal",
    "Interval",
    "LabelSmooth",
    "LayersMethod",
    "LogitsMethod",
    "Method",
    "Methods",
    "OneOf",
    "Outputs",
    "ProbabilityShift",
    "ReviewKD",
    "Similarity",
    "Standardize",
    "StudentMax",
    "Way",
    "as_methods",
    "described",
    "get",
    "names",
    "option",
    "options",
    "parse",
    "parse_way",
    "register",
]
