"""What transformers makes of a model: its tensors, logits and loss.

torch and transformers are loaded here when they are called for; code in a model folder never runs.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import TOKENIZERS, LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.tokenizer import check_tokenizer_bounds
from hfgrow.console import Progress, counting
from hfgrow.errors import GrowthError, ModelError, VerificationError, foreign, printable
from hfgrow.growth.forward import ModelRole, as_stored, logits_of
from hfgrow.growth.loading import silence_transformers, skeleton, transformers_config
from hfgrow.plan.promise import Measured, coarser

# What this module imports, for those who ask before they call.
TRANSFORMERS = ("torch", "transformers", "safetensors", "accelerate")
# Up to how many parameters, and the tokens of the probe; what is larger gets the least.
_TOKENS = ((10**9, 512), (2 * 10**9, 256))
_LEAST_TOKENS = 128
# Logits compared at a time, at most 64 positions: some copies of them in float64, 34 MB each.
_LOGITS = 1 << 22
_DEMO = Path(__file__).resolve().parent.parent / "demo"


_GROWN = ModelRole("the grown model", VerificationError)
_BASE = ModelRole("the base", ModelError)


def measure(base: Path, grown: Path, progress: Progress, text: str | None = None) -> Measured:
    """Run base and grown model over the same tokens and compare.

    Both compute on the CPU in the dtype they are stored in, one after the other, with the weights
    of one module in memory, or all of a derived family; the base in the
    dtype of the grown model where that is finer, or its own rounding would be measured. A base
    without a tokenizer that works is measured on pseudo-random tokens.

    Args:
        base: Folder of the base.
        grown: Folder of the grown model.
        progress: Told what is done.
        text: The probe text, of which the first `num_probe_tokens` count. None takes the one that
            comes with the base, if it is the demo model, and otherwise a page of English shipped
            with hfgrow.

    Raises:
        VerificationError: transformers cannot load the grown model, it lacks tensors, or its
            logits are not finite.
        ModelError: So it is with the base.
    """
    progress.say("Measuring logits of base and grown model")
    first, second = read(LocalFolder(base)), read(LocalFolder(grown))
    tokens, name = _tokens(base, first.settings, second.num_parameters, text, progress)
    with counting(progress, "Measuring logits", first.nbytes + second.nbytes) as advance:
        try:
            grown_logits, grown_dtype = logits_of(second, tokens, _GROWN, advance=advance)
        except VerificationError:
            # Where the base fails too, it is to blame.
            logits_of(first, tokens, _BASE)
            raise
        base_logits, base_dtype = logits_of(
            first, tokens, _BASE, at_least=grown_dtype, advance=advance
        )
    return Measured(
        text=name,
        num_tokens=tokens.shape[1],
        dtype=coarser(base_dtype, grown_dtype),
        **_compared(base_logits, grown_logits, tokens[0]),
    )


def rounding_of(
    base: Path, grown: Path, progress: Progress, text: str | None = None
) -> float | None:
    """Return what float32 does to a logit of base or grown model that float64 does not.

    The norms of transformers compute in float32 in both; their rounding meets other sums in each,
    so that it shows too.

    Args:
        base: Folder of the base.
        grown: Folder of the grown model.
        progress: Told what is done.
        text: As in `measure`.

    Returns:
        The larger of their largest differences; None where a model does not run in both.
    """
    progress.say("Logits differ by more than usual: measuring what rounding does to both models")
    first, second = read(LocalFolder(base)), read(LocalFolder(grown))
    tokens, _ = _tokens(base, first.settings, second.num_parameters, text, progress)
    most = 0.0
    with (
        suppress(GrowthError),
        counting(progress, "Measuring rounding", 2 * (first.nbytes + second.nbytes)) as advance,
    ):
        for plan in (first, second):
            logits = [
                logits_of(plan, tokens, _BASE, dtype=dtype, advance=advance)[0].double()
                for dtype in ("float32", "float64")
            ]
            most = max(most, (logits[1] - logits[0]).abs().max().item())
        return most
    return None


def num_probe_tokens(num_parameters: int) -> int:
    """Return how many tokens a model is measured on: 512 up to a billion parameters, at least 128.

    What is wrong with a growth shows on every token; more of them cost time, and at some billions
    of parameters minutes of it.
    """
    return next((tokens for most, tokens in _TOKENS if num_parameters <= most), _LEAST_TOKENS)


def _compared(base: Any, grown: Any, tokens: Any) -> dict[str, float]:
    """Compare logits [num_tokens, vocab_size], some positions at a time, in float64."""
    num_tokens, rows = len(tokens), max(1, min(64, _LOGITS // base.shape[-1]))
    names = ("base_loss", "grown_loss", "mean_kl", "mean_abs_dlogit", "argmax_agreement")
    sums: dict[str, float] = dict.fromkeys(names, 0.0)
    most = {"max_abs_dlogit": 0.0, "max_abs_logit": 0.0}
    for start in range(0, num_tokens, rows):
        one, two = (logits[start : start + rows].double() for logits in (base, grown))
        difference = (two - one).abs()
        most["max_abs_dlogit"] = max(most["max_abs_dlogit"], difference.max().item())
        most["max_abs_logit"] = max(most["max_abs_logit"], one.abs().max().item())
        sums["mean_abs_dlogit"] += difference.mean(-1).sum().item() / num_tokens
        sums["argmax_agreement"] += (one.argmax(-1) == two.argmax(-1)).sum().item() / num_tokens
        one, two = one.log_softmax(-1), two.log_softmax(-1)
        sums["mean_kl"] += (one.exp() * (one - two)).sum().item() / num_tokens
        following = tokens[start + 1 : start + 1 + rows, None]
        for key, logs in (("base_loss", one), ("grown_loss", two)):
            found = logs[: len(following)].gather(-1, following)
            sums[key] -= found.sum().item() / (num_tokens - 1)
    # KL is not negative; its rounded sum may be. A share is at most 1.
    bounds = {
        "mean_kl": max(0.0, sums["mean_kl"]),
        "argmax_agreement": min(1.0, sums["argmax_agreement"]),
    }
    return sums | most | bounds


def _tokens(
    base: Path,
    config: Mapping[str, Any],
    num_parameters: int,
    text: str | None,
    progress: Progress,
) -> tuple[Any, str]:
    """Return token ids [1, num_tokens] and what they came from."""
    limit = num_probe_tokens(num_parameters)
    limit = min(limit, int(config.get("max_position_embeddings") or limit))
    text, name = probe_text(base, text)
    if any((base / file).is_file() for file in TOKENIZERS):
        try:
            tokenizer = opened_tokenizer(base)
            return tokenized(tokenizer, text, config["vocab_size"], progress)[:, :limit], name
        except ModelError as error:
            progress.say(f"Note: {error}")
    return _random_tokens(config["vocab_size"], min(limit, _LEAST_TOKENS)), "random tokens"


def probe_text(base: Path, given: str | None) -> tuple[str, str]:
    """Return the text that a model is measured on, as `measure` takes it, and what it is."""
    if given is not None:
        return given, "the given text"
    if base.resolve() == _DEMO:
        return (_DEMO / "probe.txt").read_text(encoding="utf-8"), "its held-out text"
    return Path(__file__).with_name("probe.txt").read_text(encoding="utf-8"), "a probe text"


def _random_tokens(vocab_size: int, num_tokens: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocab_size, (1, num_tokens), generator=generator)


def opened_tokenizer(base: Path) -> Any:
    """Return the tokenizer in a folder, as transformers opens it.

    Raises:
        ModelError: There is none that can be loaded.
    """
    check_tokenizer_bounds(base)
    silence_transformers()
    from transformers import AutoTokenizer

    with foreign(lambda said: ModelError(f"the tokenizer cannot be loaded: {said}")):
        return AutoTokenizer.from_pretrained(base, trust_remote_code=False, local_files_only=True)


def tokenized(tokenizer: Any, text: str, vocab_size: int, progress: Progress) -> Any:
    """Return the token ids [1, num_tokens] of a text.

    Raises:
        ModelError: The tokenizer does not work, makes fewer than 2 tokens, or one that the model
            does not have.
    """
    with foreign(lambda said: ModelError(f"the tokenizer cannot be used: {said}")):
        tokens = tokenizer(text, return_tensors="pt").input_ids
    if len(tokenizer) > vocab_size:
        progress.say(f"Note: the tokenizer has {len(tokenizer)} tokens, the model {vocab_size}")
    if tokens.shape[1] < 2:
        raise ModelError("the tokenizer makes fewer than 2 tokens of the probe text")
    if int(tokens.max()) >= vocab_size:
        raise ModelError("the tokenizer gives tokens beyond the model's vocab_size")
    return tokens


def check_transformers_view(folder: Path, base: Path | None = None) -> int:
    """Build the model on the meta device and compare what it expects with what is stored.

    Args:
        folder: The grown model.
        base: What it grew from; where transformers refuses that too, the base is to blame.

    Returns:
        The number of stored tensors.

    Raises:
        VerificationError: transformers expects other names or shapes, or refuses the config.
        ModelError: It refuses the config of the base.
    """
    plan = read(LocalFolder(folder))
    if plan.derived is not None:
        # It was compared with transformers' model as it was read: buffers too, in either form.
        return len(plan.tensors)
    stored = {name: tensor.shape for name, tensor in plan.tensors.items()}
    try:
        with foreign(
            lambda said: VerificationError(f"transformers refuses the grown config: {said}")
        ):
            model = _built(folder)
    except VerificationError:
        if base is not None:
            with foreign(
                lambda said: ModelError(
                    f"config.json: transformers refuses it: {said}",
                    hint="correct the config of the base",
                )
            ):
                _built(base)
        raise
    # Tied parameters are one tensor under several names; any one of them has to be stored.
    shared: dict[int, list[str]] = {}
    parameters = as_stored(model, dict(model.named_parameters(remove_duplicate=False)))
    for name, parameter in parameters.items():
        shared.setdefault(id(parameter), []).append(name)
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    missing = [names[0] for names in shared.values() if not any(name in stored for name in names)]
    unexpected = [name for name in stored if name not in shapes]
    mismatched = [name for name in stored if name in shapes and shapes[name] != stored[name]]
    for fault, names in (
        ("expects and does not find", missing),
        ("does not expect", unexpected),
        ("expects in another shape", mismatched),
    ):
        if names:
            listed = ", ".join(printable(name) for name in sorted(names)[:3])
            raise VerificationError(f"transformers {fault} {len(names)} tensors: {listed}")
    return len(stored)


def _built(folder: Path) -> Any:
    """Return the model of a config, without numbers."""
    silence_transformers()
    model = skeleton(transformers_config(folder))
    model.tie_weights()
    return model
