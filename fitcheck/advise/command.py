"""What to type to run a model, by what is published: an Ollama tag, a GGUF repository, else its page."""

from __future__ import annotations

from fitcheck.types import Fit, Model

#: What most publishers and guides ship, Ollama's tags among them. Below it quality falls fast.
COMMON_QUANT = "Q4_K_M"
_HUB = "https://huggingface.co/"
_LLAMA_CPP = {"llama.cpp", "ollama", "lmstudio"}


def command(model: Model, fit: Fit) -> str:
    """The command that runs ``model`` as ``fit`` says, or the address of a page where there is no command.

    Where layers and experts go is left out: llama.cpp and Ollama find that themselves, ``explain`` shows the flags.
    """
    if fit.runtime not in _LLAMA_CPP or model.path:
        return fit.command
    if model.ollama_tags and fit.runtime != "lmstudio" and _is_what_the_tag_holds(fit.quant):
        return f"ollama run {model.ollama_tags[0].removesuffix(':latest')}"
    repo = _gguf_repo(model, fit.quant)
    if repo and fit.runtime == "llama.cpp":
        return f"llama-server -hf {repo}{_suffix(fit.quant)} -c {fit.context_tokens}"
    return _HUB + (repo or model.hub_repo or "") if repo or model.hub_repo else ""


def is_at_hand(model: Model) -> bool:
    """Whether there is something to fetch and run, not only a page to read."""
    return bool(model.path or model.ollama_tags or model.gguf_repos)


def _is_what_the_tag_holds(quant: str) -> bool:
    """A tag without a quantisation in its name pulls the common one, or the model's native 4-bit floats."""
    return quant == COMMON_QUANT or quant.startswith("MXFP4")


def _gguf_repo(model: Model, quant: str) -> str | None:
    """A repository that holds the quantisation, or one that holds GGUF files of the model at all."""
    held = [file.repo for file in model.files if file.quant == quant and file.repo.upper().endswith("GGUF")]
    return next(iter((*held, *model.gguf_repos)), None)


def _suffix(quant: str) -> str:
    return "" if quant.startswith("MXFP4") else f":{quant}"
