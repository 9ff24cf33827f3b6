"""What to type to run a model, by what is published: an Ollama tag, a GGUF repository, else its page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fitcheck.advise.suit import DEFAULT_CONTEXT_TOKENS
from fitcheck.types import Fit, Model, Request

#: What most publishers and guides ship, Ollama's tags among them. Below it quality falls fast.
COMMON_QUANT = "Q4_K_M"
#: The same among the formats of other engines.
_COMMON_QUANTS = (COMMON_QUANT, "AWQ", "MLX-4BIT", "NF4")
_HUB = "https://huggingface.co/"
_LLAMA_CPP = {"llama.cpp", "ollama", "lmstudio"}
#: Flags that say where layers and experts go, each with a value.
_PLACEMENT_FLAGS = {"-ngl", "--n-cpu-moe", "-ts", "--device"}


def common_quant(quants: Sequence[str]) -> str:
    """The one of ``quants`` (best quality first) that most publishers ship, else the smallest."""
    return next((quant for quant in quants if quant in _COMMON_QUANTS), quants[-1])


def command(model: Model, fit: Fit) -> str:
    """The command that runs ``model`` as ``fit`` says, or the address of a page where there is no command.

    Where layers and experts go is left out: llama.cpp and Ollama find that themselves, ``explain`` shows the flags.
    """
    if fit.runtime not in _LLAMA_CPP or model.path:
        return fit.command
    repo = _gguf_repo(model, fit.quant)
    settings = [*_settings(fit.placement.flags)]
    if model.ollama_tags and _suits_ollama(model, fit, settings):
        return f"ollama run {model.ollama_tags[0].removesuffix(':latest')}"
    if repo and fit.runtime == "ollama":
        return f"ollama run hf.co/{repo}{_suffix(fit.quant)}"
    if repo and fit.runtime == "llama.cpp":
        return " ".join(["llama-server -hf", f"{repo}{_suffix(fit.quant)}", *settings, *_parts(model, fit)])
    return _HUB + (repo or model.hub_repo or "") if repo or model.hub_repo else ""


def plan_command(model: str, asked: Request) -> str:
    """What tells which hardware would run ``model`` as it was asked for."""
    options = [f"-q {asked.quant}"] if asked.quant else []
    if asked.context_tokens != DEFAULT_CONTEXT_TOKENS:
        options.append(f"-c {asked.context_tokens or 'max'}")
    if asked.runtime not in (None, "auto"):
        options.append(f"-r {asked.runtime}")
    return " ".join(["fitcheck plan", model, *options])


def is_at_hand(model: Model) -> bool:
    """Whether there is something to fetch and run, not only a page to read."""
    return bool(model.path or model.ollama_tags or model.gguf_repos)


def _suits_ollama(model: Model, fit: Fit, settings: Sequence[str]) -> bool:
    """Whether Ollama is asked for, or answers what is asked for as well: a tag without a quantisation in its name pulls
    the common one, or the model's native 4-bit floats, and runs with settings of its own."""
    if fit.runtime == "lmstudio" or not (fit.quant == COMMON_QUANT or fit.quant.startswith("MXFP4")):
        return False
    usual = settings == ["-c", str(fit.context_tokens), "-np", "1"] and fit.context_tokens <= DEFAULT_CONTEXT_TOKENS
    return fit.runtime == "ollama" or not (model.gguf_repos and (model.publisher or not usual))


def _settings(flags: Sequence[str]) -> Iterator[str]:
    """The engine's flags without those of the placement."""
    following = iter(flags)
    for flag in following:
        if flag in _PLACEMENT_FLAGS:
            next(following, None)
        else:
            yield flag


def _parts(model: Model, fit: Fit) -> Iterator[str]:
    """Which parts of a repository the server loads: it takes encoders of images and sound unless it is told not to."""
    if "embedding" in model.modalities:
        yield "--embedding"
    has_encoders = model.encoders or any("vision" in tower for tower in model.tower_params)
    if has_encoders and all(term.name != "projector" for term in fit.terms):
        yield "--no-mmproj"


def _gguf_repo(model: Model, quant: str) -> str | None:
    """The repository of the publisher that was named, one that holds the quantisation, or one that holds GGUF files of
    the model at all."""
    owner = f"{model.publisher}/".casefold()
    named = [repo for repo in model.gguf_repos if model.publisher and repo.casefold().startswith(owner)]
    held = [file.repo for file in model.files if file.quant == quant and file.repo.upper().endswith("GGUF")]
    return next(iter((*named, *held, *model.gguf_repos)), None)


def _suffix(quant: str) -> str:
    return "" if quant.startswith("MXFP4") else f":{quant}"
