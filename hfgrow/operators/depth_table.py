"""The operators that grow the number of layers."""

from hfgrow.operators.append_top import append_top
from hfgrow.operators.average import average
from hfgrow.operators.branch_scale import branch_scale
from hfgrow.operators.interpolate import interpolate
from hfgrow.operators.lesa import lesa
from hfgrow.operators.lidas import lidas
from hfgrow.operators.midas import midas
from hfgrow.operators.operator import Operator
from hfgrow.operators.partial import partial
from hfgrow.operators.progressive import progressive
from hfgrow.operators.random_depth import random_depth
from hfgrow.operators.solar import solar
from hfgrow.operators.stack import stack
from hfgrow.operators.zero_depth import zero_depth

_STACKING = "Du et al. 2024, Stacking Your Transformers, https://arxiv.org/abs/2405.15319"
_SOLAR = "Kim et al. 2023, SOLAR 10.7B, https://arxiv.org/abs/2312.15166"
_ZERO = (
    "Wang et al. 2023, LEMON, https://arxiv.org/abs/2310.07999; "
    "Wu et al. 2024, LLaMA Pro, https://arxiv.org/abs/2401.02415"
)
_RANDOM = (
    "Yao et al. 2023, Masked Structural Growth, https://arxiv.org/abs/2305.02869; "
    "Yang et al. 2020, Progressively Stacking 2.0, https://arxiv.org/abs/2011.13635"
)
_MIDAS = (
    "Saunshi et al. 2024, On the Inductive Bias of Stacking Towards Improving Reasoning, "
    "https://arxiv.org/abs/2409.19044"
)
_LIDAS = (
    "Kapl et al. 2025, Do Depth-Grown Models Overcome the Curse of Depth?, "
    "https://arxiv.org/abs/2512.08819"
)
_AVERAGE = (
    "Cao et al. 2025, Progressive Depth Up-scaling via Optimal Transport, "
    "https://arxiv.org/abs/2508.08011"
)
_LESA = "Yang et al. 2025, LESA, https://arxiv.org/abs/2502.13794"
_APPEND = (
    "Gong et al. 2019, Efficient Training of BERT by Progressively Stacking, "
    "https://proceedings.mlr.press/v97/gong19a.html; "
    "Yang et al. 2020, Progressively Stacking 2.0, https://arxiv.org/abs/2011.13635"
)
_PROGRESSIVE = (
    "Bu 2025, Scaling depth capacity via zero/one-layer model expansion, "
    "https://arxiv.org/abs/2511.04981"
)
_BRANCHES = "Yang et al. 2023, Tensor Programs VI, https://arxiv.org/abs/2310.02244"
_DEPTH = ("depth-upscaling",)
_STACKED = (*_DEPTH, "stacking")

DEPTH = (
    Operator("stack", stack, "depth", False, "o[i] = i mod l", _STACKING, _STACKED),
    Operator(
        "interpolate", interpolate, "depth", False, "o[i] = floor(i l / L)", _STACKING, _DEPTH
    ),
    Operator(
        "partial",
        partial,
        "depth",
        False,
        "o = A ++ B * r ++ C, the layers cut in runs A B C",
        _STACKING,
        _STACKED,
    ),
    Operator("solar", solar, "depth", False, "o = 0 .. l-n-1 ++ n .. l-1", _SOLAR, _DEPTH),
    Operator(
        "append-top",
        append_top,
        "depth",
        False,
        "o = 0 .. l-1 ++ 2l-L .. l-1, L at most 2l",
        _APPEND,
        _STACKED,
    ),
    Operator(
        "midas",
        midas,
        "depth",
        False,
        "o = 0 .. mb-1 ++ (m-1)b .. l-1, m = ceil(l / 2b)",
        _MIDAS,
        _STACKED,
    ),
    Operator(
        "lidas",
        lidas,
        "depth",
        False,
        "o = 0 .. s+b-1 ++ s .. l-1, s = floor((l-b) / 2)",
        _LIDAS,
        _STACKED,
    ),
    Operator(
        "progressive",
        progressive,
        "depth",
        False,
        "o[i] = 0, for l = 1",
        _PROGRESSIVE,
        _STACKED,
    ),
    Operator(
        "zero-depth",
        zero_depth,
        "depth",
        True,
        "o[i] = floor(i l / L), zero unless o[i] > o[i-1]",
        _ZERO,
        (*_DEPTH, "block-expansion"),
    ),
    Operator(
        "random-depth",
        random_depth,
        "depth",
        True,
        "o = 0 .. l-1 ++ L-l fresh layers, their branches times the mask",
        _RANDOM,
        _DEPTH,
    ),
    Operator(
        "average",
        average,
        "depth",
        False,
        "o = 0 .. l-1, mean j of k behind floor((2j+1)(l-1) / 2k), k = L-l",
        _AVERAGE,
        _DEPTH,
    ),
    Operator(
        "lesa",
        lesa,
        "depth",
        False,
        "o = 0 .. l-1, layer j of k behind floor((2j+1)(l-1) / 2k), k = L-l",
        _LESA,
        _DEPTH,
    ),
    Operator(
        "branch-scale",
        branch_scale,
        "depth",
        False,
        "o[i] = i, branches times (l/L)^A",
        _BRANCHES,
        (),
    ),
)
