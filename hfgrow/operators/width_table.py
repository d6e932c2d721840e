"""The operators that grow widths, and those that change weights and no size."""

from hfgrow.operators.bert2bert_aki import bert2bert_aki
from hfgrow.operators.bert2bert_fpi import bert2bert_fpi
from hfgrow.operators.head_dim import head_dim
from hfgrow.operators.hyperclone import hyperclone
from hfgrow.operators.hyperclone_noisy import hyperclone_noisy
from hfgrow.operators.lemon import lemon
from hfgrow.operators.net2net import net2net
from hfgrow.operators.operator import Operator
from hfgrow.operators.paper_noise import paper_noise
from hfgrow.operators.random_width import random_width
from hfgrow.operators.snp import snp
from hfgrow.operators.split import split
from hfgrow.operators.staged import staged
from hfgrow.operators.untie import untie
from hfgrow.operators.zero_width import zero_width

_STACKING = "Du et al. 2024, Stacking Your Transformers, https://arxiv.org/abs/2405.15319"
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
