"""The options that commands share, in groups, and the values they stand for."""

# Annotations are values here: the declarations of options are read from them.
from typing import Annotated, Any

from fitcheck.errors import FitcheckError
from fitcheck.parameters import Declared, Options, option
from fitcheck.types import Licences, PlacementKind, Request, Task
from fitcheck.units import parse_bytes, parse_rate, parse_tokens

MODEL_HELP = "catalog id or alias, Ollama tag, Hub id, .gguf file, model folder, or hf:org/repo[:quant]"
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
QUESTION, MACHINE, OUTPUT = "The question", "The machine", "The answer"


def _option(panel: str, *names: str, help: str, **more: Any) -> Declared:
    return option(*names, help=help, panel=panel, show_default=False, **more)


class RequestOptions(Options, frozen=True):
    """What is asked of a model."""

    context: Annotated[
        str | None, _option(QUESTION, "-c", "--context", metavar="TOKENS", help="8192, 32k or max  [default: 8k]")
    ] = None
    runtime: Annotated[
        str | None,
        _option(QUESTION, "-r", "--runtime", metavar="NAME", help="auto, llama.cpp, ollama, vllm, mlx, transformers"),
    ] = None
    quant: Annotated[
        str | None,
        _option(QUESTION, "-q", "--quant", metavar="NAME", help="Q4_K_M, Q8_0, …  [default: the best that fits]"),
    ] = None
    kv: Annotated[
        str | None, _option(QUESTION, "--kv", metavar="TYPE", help="type of the cache: f16, q8_0, q4_0  [default: f16]")
    ] = None
    parallel: Annotated[int | None, _option(QUESTION, "--parallel", least=1, most=4096, help="sequences at once")] = (
        None
    )
    prompt: Annotated[
        str | None, _option(QUESTION, "--prompt", metavar="TOKENS", help="length of a prompt  [default: 512]")
    ] = None
    min_speed: Annotated[
        float | None, _option(QUESTION, "--min-speed", metavar="N", help="tokens/s, against the low end of the range")
    ] = None
    min_prefill: Annotated[
        float | None, _option(QUESTION, "--min-prefill", metavar="N", help="prompt tokens/s, against the low end")
    ] = None
    first_token: Annotated[
        float | None, _option(QUESTION, "--first-token", metavar="S", help="most seconds until the first token")
    ] = None
    allow: Annotated[
        list[str] | None, _option(QUESTION, "--allow", metavar="WHERE", help="gpu, split, cpu; several with commas")
    ] = None
    task: Annotated[Task | None, _option(QUESTION, "--for", help="what the model is for  [default: chat]")] = None
    licence: Annotated[
        str | None, _option(QUESTION, "--licence", metavar="KIND", help="permissive, open (with data and code), any")
    ] = None
    margin: Annotated[
        str | None, _option(QUESTION, "--margin", metavar="SIZE", help="memory to keep free per device, as 2GiB")
    ] = None

    def request(self, base: Request | None = None) -> Request:
        """The request; what was not given comes from ``base`` (a configuration file, else the defaults)."""
        from msgspec.structs import replace

        given: dict[str, Any] = {}
        if self.context is not None:
            given["context_tokens"] = parse_tokens(self.context)
        if self.prompt is not None:
            given["prompt_tokens"] = _prompt_tokens(self.prompt)
        if self.kv is not None:
            given["kv_type_k"] = given["kv_type_v"] = one_of("--kv", self.kv, CACHE_TYPES)
        if self.parallel is not None:
            given["parallel"] = self.parallel
        for name, written, value in (
            ("min_decode_per_s", "--min-speed", self.min_speed),
            ("min_prefill_per_s", "--min-prefill", self.min_prefill),
            ("max_first_token_s", "--first-token", self.first_token),
        ):
            if value is not None:
                given[name] = positive(written, value)
        if self.allow:
            given["allow"] = placements("--allow", self.allow)
        if self.task is not None:
            given["task"] = self.task
        if self.licence is not None:
            given["licences"] = Licences(one_of("--licence", self.licence, [kind.value for kind in Licences]))
        if self.margin is not None:
            given["margin_bytes"] = parse_bytes(self.margin)
        if self.runtime is not None:
            given["runtime"] = None if self.runtime == "auto" else self.runtime
        if self.quant is not None:
            given["quant"] = None if self.quant == "auto" else self.quant.upper()
        return replace(base or Request(), **given)


class MachineOptions(Options, frozen=True):
    """Which machine is meant."""

    on: Annotated[
        str | None,
        _option(
            MACHINE,
            "--on",
            metavar="WHAT",
            help='pretend: "RTX 4090", "2x RTX 3090", "M4 Max 64GB", cpu, or what --json or --capture wrote',
        ),
    ] = None
    ram: Annotated[str | None, _option(MACHINE, "--ram", metavar="SIZE", help="correct the RAM, as 64GiB")] = None
    vram: Annotated[str | None, _option(MACHINE, "--vram", metavar="SIZE", help="correct the GPU memory")] = None
    bandwidth: Annotated[
        str | None, _option(MACHINE, "--bandwidth", metavar="RATE", help="correct the memory bandwidth, as 400GB/s")
    ] = None

    def corrections(self) -> tuple[int | None, int | None, float | None]:
        """RAM bytes, GPU memory bytes and bandwidth in bytes/s, where given."""
        return (
            None if self.ram is None else at_least("--ram", parse_bytes(self.ram), 2**20),
            None if self.vram is None else at_least("--vram", parse_bytes(self.vram), 2**20),
            None if self.bandwidth is None else parse_rate(self.bandwidth),
        )


class OutputOptions(Options, frozen=True):
    """How the answer is printed."""

    json: Annotated[bool, _option(OUTPUT, "--json", help="one JSON object (see: fitcheck schema)")] = False
    format: Annotated[
        str, _option(OUTPUT, "--format", metavar="KIND", help="text, markdown, and for check: github, junit")
    ] = "text"
    quiet: Annotated[bool, _option(OUTPUT, "--quiet", help="only the line that a script wants")] = False
    verbose: Annotated[bool, _option(OUTPUT, "--verbose", help="more detail; a traceback on a failure")] = False
    color: Annotated[str, _option(OUTPUT, "--color", metavar="WHEN", help="auto, always, never")] = "auto"

    def check(self, formats: tuple[str, ...] = ("text", "markdown")) -> None:
        """Raises FitcheckError for a word that is not one of the choices."""
        one_of("--format", self.format, formats)
        one_of("--color", self.color, ("auto", "always", "never"))


def one_of(option: str, value: str, choices: tuple[str, ...] | list[str]) -> str:
    """``value`` when it is one of the choices. Raises FitcheckError."""
    if value not in choices:
        raise FitcheckError("bad_option", f"{option} cannot be {value!r}", f"choose from {', '.join(choices)}")
    return value


def positive(option: str, value: float) -> float:
    """``value`` when it is a number above 0. Raises FitcheckError."""
    if not 0 < value < 1e9:
        raise FitcheckError("bad_option", f"{option} must be above 0, not {value:g}", f"write it like {option} 15")
    return value


def at_least(option: str, value: int, least: int) -> int:
    """``value`` when it is not smaller than ``least``. Raises FitcheckError."""
    if value < least:
        raise FitcheckError("bad_option", f"{option} is too small: {value}", f"write it like {option} 24GiB")
    return value


def placements(option: str, words: list[str]) -> tuple[PlacementKind, ...]:
    """``["gpu,split"]`` -> placements in the order gpu, split, cpu. Raises FitcheckError."""
    kinds = [kind.value for kind in PlacementKind]
    chosen = {one_of(option, word.strip(), kinds) for text in words for word in text.split(",")}
    return tuple(kind for kind in PlacementKind if kind.value in chosen)


def _prompt_tokens(text: str) -> int:
    tokens = parse_tokens(text)
    if tokens is None:
        raise FitcheckError("bad_option", "--prompt needs a number of tokens", "write it like --prompt 4k")
    return tokens


__all__ = ["MODEL_HELP", "MachineOptions", "OutputOptions", "RequestOptions"]
