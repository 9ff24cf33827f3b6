"""What two other programs would say: the forms of their formulas and their constants, as facts.

llmfit 1.1.17: bandwidth / file size x 0.55. whichllm 0.5.21: bandwidth / bytes read x efficiency of the quantisation x
factor of the vendor; of a mixture of experts it reads the active share, but at least 5 % per 256 GB/s, at most 25 %.
"""

from __future__ import annotations

from fitcheck.accuracy.measurements import Measured
from fitcheck.types import Vendor

LLMFIT_SHARE = 0.55
WHICHLLM_QUANT = {
    "F16": 0.40, "BF16": 0.40, "Q8_0": 0.45, "Q6_K": 0.50, "Q5_K_M": 0.52, "Q5_K_S": 0.52, "Q5_0": 0.50,
    "Q4_K_M": 0.55, "Q4_K_S": 0.55, "Q4_0": 0.53, "NVFP4": 0.56, "MXFP4": 0.55, "Q3_K_M": 0.50, "Q3_K_S": 0.48,
    "Q3_K_L": 0.50, "IQ4_XS": 0.52, "IQ4_NL": 0.50, "IQ3_XXS": 0.42, "IQ2_M": 0.40, "IQ2_XXS": 0.38, "IQ1_M": 0.35,
    "IQ1_S": 0.35,
}  # fmt: skip
WHICHLLM_OTHER = 0.45
WHICHLLM_VENDOR = {Vendor.NVIDIA: 1.0, Vendor.AMD: 0.78, Vendor.APPLE: 0.82, Vendor.INTEL: 0.65}


def llmfit(row: Measured) -> float:
    """Decode tokens/s by llmfit's formula."""
    return _bandwidth(row) / row.weights.total * LLMFIT_SHARE


def whichllm(row: Measured) -> float:
    """Decode tokens/s by whichllm's formula."""
    quant = WHICHLLM_QUANT.get(row.weights.quant.removesuffix("_MOE"), WHICHLLM_OTHER)
    if row.on_cpu:
        return max(0.3, 18.0 / max(row.model.params_active / 1e9, 0.5) * quant / WHICHLLM_OTHER)
    bandwidth = _bandwidth(row)
    floor = min(0.25, 0.05 * max(1.0, bandwidth / 256e9))
    share = max(row.model.params_active / row.model.params, floor) if row.is_moe else 1.0
    vendor = row.machine.accelerators[0].vendor
    return bandwidth / (row.weights.total * min(1.0, share)) * quant * WHICHLLM_VENDOR.get(vendor, 0.7)


def _bandwidth(row: Measured) -> float:
    pool = row.machine.ram if row.on_cpu else row.machine.accelerators[0].pool
    assert pool.bandwidth is not None
    return pool.bandwidth.per_s
