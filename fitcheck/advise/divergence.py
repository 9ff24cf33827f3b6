"""What a quantisation costs in quality: KL divergence from the full model, and the share of a score that it takes.

Source of the form: the divergences in llama.cpp's perplexity README (Llama 3 8B, wikitext-2). A K-quant stands for any
format of as many bits that was not measured.
"""

from __future__ import annotations

import math
import re
from typing import Any, Protocol

from fitcheck.types import Model

_KLD_SHARE = 0.5  # Q2_K costs a fifth, IQ2_XXS a third, IQ1_S two thirds of the score; Q4_K_M 1.5 %
_KLD_SIZE_EXPONENT = 0.075  # Llama 2: Q4_K_M costs 1.42 % in perplexity at 7B, 1.20 % at 70B; Q6_K 0.24 % and 0.16 %
_KLD_PARAMS = 8.03e9
_NATIVE_REST = 0.25  # of a model trained in 4 bits, a 4-bit file changes only what was not 4 bits
_NATIVE_BITS = {"MXFP4": 4.25, "INT4": 4.25, "FP8": 8.0}
# bits per weight of the block that most of the file is in
_LADDER = (("Q2_K", 2.625), ("Q3_K_M", 3.4375), ("Q4_K_M", 4.5), ("Q5_K_M", 5.5), ("Q6_K", 6.5625), ("Q8_0", 8.5))
_DIGIT = re.compile(r"\d+")


class QualityTables(Protocol):
    """What is read of ``estimate.quantizations.Quantizations``."""

    @property
    def quality(self) -> tuple[dict[str, Any], ...]:
        """Published quality losses, per model a list of rows."""

    @property
    def formats(self) -> Any:
        """Formats outside GGUF with their bits per weight."""

    def like(self, quant: str) -> str:
        """The llama.cpp mix that stands for a quantisation."""


class Divergence:
    """KL divergence of quantisations from the full model, and the share of the score that it costs."""

    def __init__(self, quantizations: QualityTables) -> None:
        self._published: dict[str, float] = {}
        for table in quantizations.quality:
            for row in table["rows"]:
                # without an importance matrix comes first: that is what a file is unless its maker says otherwise
                if row.get("mean_kld") is not None and (row["quant"] not in self._published or row["imatrix"] is None):
                    self._published[row["quant"]] = row["mean_kld"]
        self._formats = quantizations.formats
        self._like = quantizations.like

    def loss(self, model: Model, quant: str) -> float:
        """Share of the score, 0 to 1."""
        if quant in (model.native_dtype, "BF16", "F32"):
            return 0.0
        divergence = self.of(quant)
        if bits_of(quant, self._formats) >= _NATIVE_BITS.get(model.native_dtype, 16.0) - 0.3:
            divergence *= _NATIVE_REST
        size = (_KLD_PARAMS / max(model.params, 1)) ** _KLD_SIZE_EXPONENT
        return 1 - math.exp(-_KLD_SHARE * divergence * size)

    def of(self, quant: str) -> float:
        """The published divergence, else that of a K-quant of as many bits."""
        published = self._published.get(self._like(quant))
        if published is not None:
            return published
        bits = bits_of(quant, self._formats)
        known = sorted((b, self._published[name]) for name, b in _LADDER if name in self._published)
        if not known or bits >= 15:
            return 0.0
        low = max((step for step in known if step[0] <= bits), default=known[0])
        high = min((step for step in known if step[0] >= bits), default=known[-1])
        share = (bits - low[0]) / (high[0] - low[0]) if high[0] > low[0] else 0.0
        return math.exp(math.log(low[1]) * (1 - share) + math.log(high[1]) * share)


def bits_of(quant: str, formats: Any) -> float:
    """Bits per weight of a quantisation: of its format, or as its name says."""
    form = formats.get(quant)
    if form is not None:
        return float(form.bits)
    if quant in ("F16", "BF16", "F32"):
        return 16.0
    digit = _DIGIT.search(quant)
    return float(digit[0]) + 0.5 if digit else 4.5
