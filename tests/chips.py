# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Chips that plans are made for, without a device."""

from micro_ops.layernorm import cost
from micro_ops.layernorm.plan import Chip

L1_BYTES = 1_432_800  # what ttnn leaves of a Wormhole core's; a Blackhole core has more
ONE_CORE = Chip(cost.BLACKHOLE, L1_BYTES, origin=(0, 0), noc_x=(1,), noc_y=(2,), max_cores=1)
# As wolfpine has them: between the columns 7 and 10, and on Wormhole between rows, too, lies what is no Tensix core.
BLACKHOLE = Chip(
    cost.BLACKHOLE, L1_BYTES, (0, 0), noc_x=(*range(1, 8), *range(10, 16)), noc_y=tuple(range(2, 12)), max_cores=130
)
WORMHOLE = Chip(
    cost.WORMHOLE, L1_BYTES, (0, 0), noc_x=(1, 2, 3, 4, 6, 7, 8, 9), noc_y=(*range(1, 6), *range(7, 11)), max_cores=72
)
HARVESTED = Chip(
    cost.BLACKHOLE, L1_BYTES, (0, 0), noc_x=(*range(1, 8), *range(10, 14)), noc_y=tuple(range(2, 12)), max_cores=110
)
"""Two columns fewer"""
