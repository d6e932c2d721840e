"""What transformers makes of a model: its tensors, logits, loss and settings of generation.

torch and transformers are loaded here when they are called for; code in a model folder never runs.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import TOKENIZERS, LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.strict import read_json_object
from hfgrow.checkpoint.tokenizer import check_tokenizer_bounds
from hfgrow.console import Progress
from hfgrow.errors import GrowthError, ModelError, VerificationError, foreign, printable
from hfgrow.growth.loading import (
    available_nbytes,
    loaded_model,
    missing,
    silence_transformers,
    skeleton,
    transformers_config,
    weights_nbytes,
)
from hfgrow.plan.promise import Measured, coarser

# What this module imports, for those who ask before they call.
TRANSFORMERS = ("torch", "transformers", "safetensors")
_MAX_TOKENS = 512
# Positions compared at a time: their logits in float64 are three times 80 MB at 152k tokens.
_ROWS = 64
_DEMO = Path(__file__).resolve().parent.parent / "demo"


@dataclass(frozen=True, slots=True)
class _Role:
    """What a model is in a comparison, and whose fault it is where it fails."""

    name: str
    error: type[GrowthError]


_GROWN = _Role("the grown model", VerificationError)
_BASE = _Role("the base", ModelError)


def measure(
    base: Path, grown: Path, progress: Progress, text: str | None = None
) -> Measured | None:
    """Run base and grown model over the same tokens and compare.

    Both are loaded in the dtype they are stored in, one after the other, on the CPU; the base in
    that of the grown model where that is finer, or its own rounding would be measured. A base
    without a tokenizer that works is measured on pseudo-random tokens.

    Args:
        base: Folder of the base.
        grown: Folder of the grown model.
        progress: Told what is done, or why it is not.
        text: The probe text; the first 512 tokens count. None takes the one that comes with the
            base, if it is the demo model, and otherwise a page of English shipped with hfgrow.

    Returns:
        The comparison, or None if the grown model does not fit in the free memory.

    Raises:
        VerificationError: transformers cannot load the grown model, it lacks tensors, or its
            logits are not finite.
        ModelError: So it is with the base.
    """
    needed, free = weights_nbytes(grown), available_nbytes()
    if needed > free:
        progress.say(
            f"Note: logits were not measured: the grown model takes {needed / 1e9:.1f} GB of "
            f"memory, {free / 1e9:.1f} GB are free"
        )
        return None
    progress.say("Measuring logits of base and grown model")
    tokens, name = _tokens(base, text, progress)
    try:
        grown_logits, grown_dtype = _logits(grown, tokens, _GROWN)
    except VerificationError:
        # Where the base fails too, it is to blame.
        _logits(base, tokens, _BASE)
        raise
    base_logits, base_dtype = _logits(base, tokens, _BASE, at_least=grown_dtype)
    return Measured(
        text=name,
        num_tokens=tokens.shape[1],
        dtype=coarser(base_dtype, grown_dtype),
        **_compared(base_logits, grown_logits, tokens[0]),
    )


def _compared(base: Any, grown: Any, tokens: Any) -> dict[str, float]:
    """Compare logits [num_tokens, vocab_size], some positions at a time, in float64."""
    num_tokens = len(tokens)
    names = ("base_loss", "grown_loss", "mean_kl", "mean_abs_dlogit", "argmax_agreement")
    sums: dict[str, float] = dict.fromkeys(names, 0.0)
    most = {"max_abs_dlogit": 0.0, "max_abs_logit": 0.0}
    for start in range(0, num_tokens, _ROWS):
        one, two = (logits[start : start + _ROWS].double() for logits in (base, grown))
        difference = (two - one).abs()
        most["max_abs_dlogit"] = max(most["max_abs_dlogit"], difference.max().item())
        most["max_abs_logit"] = max(most["max_abs_logit"], one.abs().max().item())
        sums["mean_abs_dlogit"] += difference.mean(-1).sum().item() / num_tokens
        sums["argmax_agreement"] += (one.argmax(-1) == two.argmax(-1)).sum().item() / num_tokens
        one, two = one.log_softmax(-1), two.log_softmax(-1)
        sums["mean_kl"] += (one.exp() * (one - two)).sum().item() / num_tokens
        following = tokens[start + 1 : start + 1 + _ROWS, None]
        for key, logs in (("base_loss", one), ("grown_loss", two)):
            found = logs[: len(following)].gather(-1, following)
            sums[key] -= found.sum().item() / (num_tokens - 1)
    # KL is not negative; its rounded sum may be. A share is at most 1.
    bounds = {
        "mean_kl": max(0.0, sums["mean_kl"]),
        "argmax_agreement": min(1.0, sums["argmax_agreement"]),
    }
    return sums | most | bounds


def _tokens(base: Path, text: str | None, progress: Progress) -> tuple[Any, str]:
    """Return token ids [1, num_tokens] and what they came from."""
    plan = read(LocalFolder(base))
    config = plan.derived.settings if plan.derived else plan.config
    limit = min(_MAX_TOKENS, int(config.get("max_position_embeddings") or _MAX_TOKENS))
    if text is not None:
        name = "the given text"
    elif base.resolve() == _DEMO:
        text, name = (_DEMO / "probe.txt").read_text(encoding="utf-8"), "its held-out text"
    else:
        text = Path(__file__).with_name("probe.txt").read_text(encoding="utf-8")
        name = "a probe text"
    if any((base / file).is_file() for file in TOKENIZERS):
        try:
            return _tokenize(base, text, config["vocab_size"], progress)[:, :limit], name
        except ModelError as error:
            progress.say(f"Note: {error}")
    return _random_tokens(config["vocab_size"], min(limit, _MAX_TOKENS // 4)), "random tokens"


def _random_tokens(vocab_size: int, num_tokens: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocab_size, (1, num_tokens), generator=generator)


def _tokenize(base: Path, text: str, vocab_size: int, progress: Progress) -> Any:
    check_tokenizer_bounds(base)
    silence_transformers()
    from transformers import AutoTokenizer

    with foreign(lambda said: ModelError(f"the tokenizer cannot be loaded: {said}")):
        tokenizer = AutoTokenizer.from_pretrained(
            base, trust_remote_code=False, local_files_only=True
        )
        tokens = tokenizer(text, return_tensors="pt").input_ids
    if len(tokenizer) > vocab_size:
        progress.say(f"Note: the tokenizer has {len(tokenizer)} tokens, the model {vocab_size}")
    if tokens.shape[1] < 2:
        raise ModelError("the tokenizer makes fewer than 2 tokens of the probe text")
    if int(tokens.max()) >= vocab_size:
        raise ModelError("the tokenizer gives tokens beyond the model's vocab_size")
    return tokens


def _unmapped(folder: Path) -> dict[str, bool]:
    """Have a model read, not mapped, where memory allows and transformers can.

    A mapped file that somebody truncates ends the process with SIGBUS, and nothing is told.
    """
    from transformers import PreTrainedModel

    if 3 * weights_nbytes(folder) > available_nbytes():
        return {}
    known = "disable_mmap" in inspect.signature(PreTrainedModel.from_pretrained).parameters
    return {"disable_mmap": True} if known else {}


def _logits(
    folder: Path, tokens: Any, role: "_Role", at_least: str | None = None
) -> tuple[Any, str]:
    import torch

    silence_transformers()
    from transformers import GenerationConfig

    any_generation: Any = GenerationConfig
    with foreign(lambda said: role.error(f"transformers cannot load {role.name}: {said}")):
        config = transformers_config(folder)
        stored = str(config.dtype or torch.float32).removeprefix("torch.")
        is_finer = at_least is not None and coarser(stored, at_least) != at_least
        model, info = loaded_model(
            folder,
            config,
            dtype=getattr(torch, at_least) if is_finer and at_least else "auto",
            output_loading_info=True,
            **_unmapped(folder),
            # How a base generates is not asked here; what is grown from it must load as it is.
            **({} if at_least is None else {"generation_config": any_generation()}),
        )
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if role is _BASE and fault == "unexpected_keys":
            # The strict reader refused or left out what the model does not have, and said so.
            continue
        if info.get(fault):
            names = ", ".join(printable(name) for name in sorted(map(str, info[fault]))[:3])
            raise role.error(f"loading {role.name}: {fault.replace('_', ' ')} {names}")
    with (
        foreign(lambda said: role.error(f"transformers cannot run {role.name}: {said}")),
        torch.inference_mode(),
    ):
        logits = model(tokens).logits[0].float()
    if not logits.isfinite().all():
        raise role.error(
            f"{role.name}: its logits are not finite",
            hint="the weights hold NaN or infinity, or overflow in this dtype; or a number of "
            "config.json cannot be",
        )
    return logits, str(model.dtype).removeprefix("torch.")


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
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shared.setdefault(id(parameter), []).append(name)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
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


_NAME = "generation_config.json"


def settle_generation(folder: Path, progress: Progress, *, ask_transformers: bool) -> None:
    """Leave out the settings of generation if they would stop the model from loading.

    Args:
        folder: The grown model, which is not published yet.
        progress: Told if they are left out, and why.
        ask_transformers: Whether transformers loads them too.
    """
    if not (folder / _NAME).is_file():
        return
    fault = _fault(folder, ask_transformers=ask_transformers)
    if fault:
        (folder / _NAME).unlink()
        progress.say(f"Note: {_NAME} of the base was left out: {fault}")


def check_generation(folder: Path) -> None:
    """Refuse settings of generation that would stop a model from loading; none are fine.

    Raises:
        ModelError: They would.
    """
    if not (folder / _NAME).is_file():
        return
    if fault := _fault(folder, ask_transformers=not missing(*TRANSFORMERS)):
        raise ModelError(
            fault if _NAME in fault else f"{_NAME}: {fault}", hint="correct it, or remove it"
        )


def _fault(folder: Path, *, ask_transformers: bool) -> str:
    try:
        read_json_object(LocalFolder(folder), _NAME)
    except ModelError as error:
        return str(error)
    if not ask_transformers:
        return ""
    from transformers import GenerationConfig

    try:
        GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        return f"transformers refuses it: {printable(error, 200)}"
    return ""
