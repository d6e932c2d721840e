"""The operators that grow the number of layers.

The operators that grow widths, and those that change weights and no size.
"""

from hfgrow.plan.operators.copying import (
    bert2bert_aki,
    bert2bert_fpi,
    hyperclone,
    hyperclone_noisy,
    lemon,
    net2net,
    split,
    staged,
)
from hfgrow.plan.operators.inserting import average, lesa, random_depth, zero_depth
from hfgrow.plan.operators.operator import Operator
from hfgrow.plan.operators.padding import head_dim, random_width, snp, zero_width
from hfgrow.plan.operators.stacking import (
    append_top,
    interpolate,
    lidas,
    midas,
    partial,
    progressive,
    solar,
    stack,
)
from hfgrow.plan.operators.weights import branch_scale, paper_noise, untie

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
_HYPERCLONE = "Samragh et al. 2024, Scaling Smart, https://arxiv.org/abs/2409.12903"
_NET2NET = "Chen et al. 2016, Net2Net, https://arxiv.org/abs/1511.05641"
_BERT2BERT = "Chen et al. 2022, bert2BERT, https://arxiv.org/abs/2110.07143"
_LEMON = "Wang et al. 2023, LEMON, https://arxiv.org/abs/2310.07999"
_STAGED = (
    "Shen et al. 2022, Staged Training for Transformer Language Models, "
    "https://arxiv.org/abs/2203.06211"
)
_MASKED = "Yao et al. 2023, Masked Structural Growth, https://arxiv.org/abs/2305.02869"
_SNP = (
    "Mallik et al. 2024, Warmstarting for Scaling Language Models, https://arxiv.org/abs/2411.07340"
)
_EXPANSIONS = (
    "Gesmundo and Maile 2023, Composable Function-preserving Expansions, "
    "https://arxiv.org/abs/2308.06103"
)
_TYING = (
    "Press and Wolf 2017, Using the Output Embedding to Improve Language Models, "
    "https://arxiv.org/abs/1608.05859"
)
_TAGS = ("width-growth",)

WIDTH = (
    Operator(
        "hyperclone-noisy",
        hyperclone_noisy,
        "width",
        True,
        "copies i mod d, each 1/n of its source, plus N with N P = 0",
        _HYPERCLONE,
        _TAGS,
    ),
    Operator(
        "hyperclone",
        hyperclone,
        "width",
        True,
        "W' = W/n in n x n tiles, D = n d",
        _HYPERCLONE,
        _TAGS,
    ),
    Operator(
        "split",
        split,
        "width",
        True,
        "W' = W with rows copied, columns split a + b = 1",
        _STACKING,
        _TAGS,
    ),
    Operator(
        "zero-width",
        zero_width,
        "width",
        True,
        "h' = [h, 0]; readers [[W, A], [B, C]], writers [[W, 0], [0, 0]]",
        _STACKING,
        _TAGS,
    ),
    Operator(
        "random-width",
        random_width,
        "width",
        True,
        "W' = [[W, A], [B, C]], what reaches the stream anew times the mask",
        f"{_STACKING}; {_MASKED}",
        _TAGS,
    ),
    Operator(
        "lemon",
        lemon,
        "width",
        True,
        "h' = [h, .., h, 0], copies split 1 : 2 : .. : n",
        _LEMON,
        _TAGS,
    ),
    Operator(
        "net2net",
        net2net,
        "width",
        True,
        "copies of units drawn at random, each 1/n, plus noise",
        _NET2NET,
        _TAGS,
    ),
    Operator(
        "bert2bert-fpi",
        bert2bert_fpi,
        "width",
        True,
        "copies of units drawn at random, each 1/n",
        _BERT2BERT,
        _TAGS,
    ),
    Operator(
        "bert2bert-aki",
        bert2bert_aki,
        "width",
        False,
        "as bert2bert-fpi, new rows of layer i from layer i+1",
        _BERT2BERT,
        _TAGS,
    ),
    Operator("staged", staged, "width", True, "W' = diag(W, .., W), g times", _STAGED, _TAGS),
    Operator("snp", snp, "width", False, "W' = s [[W, 0], [0, 0]] + N(0, sigma^2)", _SNP, _TAGS),
    Operator(
        "head-dim",
        head_dim,
        "width",
        True,
        "rotary pair i to pair k i, the rest zero",
        _EXPANSIONS,
        _TAGS,
    ),
)
WEIGHTS = (
    Operator("untie", untie, "weights", True, "lm_head = E", _TYING, ()),
    Operator("paper-noise", paper_noise, "weights", False, "W' = (1 - a) W + a eps", _STACKING, ()),
)
