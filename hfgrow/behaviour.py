"""What transformers makes of a model: the tensors it expects, and logits and loss on a text.

torch and transformers are loaded here and nowhere before; code in a model folder never runs.
"""

from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError, VerificationError, printable
from hfgrow.lineage import Measured

_MAX_TOKENS = 512


def check_transformers_view(folder: Path) -> int:
    """Build the model on the meta device and compare what it expects with what is stored.

    Returns:
        The number of stored tensors.

    Raises:
        VerificationError: transformers expects other names or shapes, or refuses the config.
    """
    import torch

    auto_config, auto_model = _auto_classes()

    stored = {name: tensor.shape for name, tensor in read(LocalFolder(folder)).tensors.items()}
    try:
        config = auto_config.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model = auto_model.from_config(config, trust_remote_code=False)
        model.tie_weights()
    except Exception as error:
        reason = printable(error, 300)
        raise VerificationError(f"transformers refuses {folder.name}: {reason}") from error
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


def measure(base: Path, grown: Path, text: str | None = None) -> Measured:
    """Run base and grown model over the same tokens and compare.

    Both are loaded in the dtype they are stored in, one after the other, on the CPU.

    Args:
        base: Folder of the base.
        grown: Folder of the grown model.
        text: The probe text; the first 512 tokens count. None takes the one that comes with the
            base, if it is the demo model, and otherwise a page of English shipped with hfgrow.

    Raises:
        ModelError: The base has no tokenizer that can be loaded.
        VerificationError: transformers cannot load the grown model, or it lacks tensors.
    """
    tokens = _tokenize(base, probe_text(base) if text is None else text)
    base_logits, _ = _logits(base, tokens)
    grown_logits, dtype = _logits(grown, tokens)
    difference = (grown_logits - base_logits).abs()
    return Measured(
        num_tokens=tokens.shape[1],
        dtype=dtype,
        base_loss=_loss(base_logits, tokens),
        grown_loss=_loss(grown_logits, tokens),
        max_abs_dlogit=difference.max().item(),
        mean_abs_dlogit=difference.mean().item(),
        argmax_agreement=(base_logits.argmax(-1) == grown_logits.argmax(-1)).float().mean().item(),
    )


def probe_text(base: Path) -> str:
    """Return the text to measure a base on."""
    own = base / "probe.txt"
    path = own if own.is_file() else Path(__file__).with_name("probe.txt")
    return path.read_text(encoding="utf-8")


def _auto_classes() -> tuple[Any, Any]:
    """Import transformers, with its own bars and notices switched off."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return AutoConfig, AutoModelForCausalLM


def _tokenize(base: Path, text: str) -> Any:
    _auto_classes()
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            base, trust_remote_code=False, local_files_only=True
        )
        tokens = tokenizer(text, return_tensors="pt").input_ids[:, :_MAX_TOKENS]
    except Exception as error:
        raise ModelError(
            f"{base.name} has no tokenizer that can be loaded: {printable(error, 200)}",
            hint="logits cannot be measured without one; add --no-verify",
        ) from error
    if tokens.shape[1] < 2:
        raise ModelError("the probe text has fewer than 2 tokens")
    return tokens


def _logits(folder: Path, tokens: Any) -> tuple[Any, str]:
    import torch

    _, auto_model = _auto_classes()
    try:
        model, info = auto_model.from_pretrained(
            folder,
            dtype="auto",
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise VerificationError(
            f"transformers cannot load {folder.name}: {printable(error, 300)}"
        ) from error
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(fault):
            names = ", ".join(printable(name) for name in sorted(map(str, info[fault]))[:3])
            raise VerificationError(f"loading {folder.name}: {fault.replace('_', ' ')} {names}")
    limit = model.config.max_position_embeddings
    if tokens.shape[1] > limit:
        raise ModelError(f"the probe text has {tokens.shape[1]} tokens, the model takes {limit}")
    if int(tokens.max()) >= model.config.vocab_size:
        raise ModelError("the tokenizer gives tokens beyond the model's vocab_size")
    with torch.inference_mode():
        logits = model(tokens).logits[0].float()
    return logits, str(model.dtype).removeprefix("torch.")


def _loss(logits: Any, tokens: Any) -> float:
    import torch

    return float(torch.nn.functional.cross_entropy(logits[:-1], tokens[0, 1:]).item())
