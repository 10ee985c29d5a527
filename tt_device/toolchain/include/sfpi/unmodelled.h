// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// What this stand-in has no translation for, and refuses. ttnn's headers mention much of it in code that most kernels
// never reach; a kernel that does reach it fails to build, with the text given here.
#pragma once

#define SFPI_REFUSE(name, text) \
    [[gnu::error(text " (by this stand-in for the SFPI compiler)")]] void name()

namespace sfpi {

namespace impl_ {
SFPI_REFUSE(refuse_l_reg, "sfpi::l_reg[] (a fixed LREG) is not modelled: the register allocator places every vector");
SFPI_REFUSE(refuse_lut_table, "an sfpi::vLut table is not modelled");
SFPI_REFUSE(refuse_runtime_immediate, "an SFPU immediate that is known only at run time is modelled for vFloat(), "
                                      "vInt() and dst_reg[] alone");
SFPI_REFUSE(refuse_immediate_range, "an immediate of an SFPU instruction is out of its range");
SFPI_REFUSE(refuse_min_max_mask, "sfpi::min_max with a row mask is not modelled");
SFPI_REFUSE(refuse_dest_format, "dst_reg[]: this vector type in this DataLayout is not modelled");
SFPI_REFUSE(refuse_setman, "sfpi::setman with an immediate other than 0 is not modelled");
SFPI_REFUSE(refuse_recip_mode, "sfpi::approx_recip with RecipMode::IfNegative is not modelled");
SFPI_REFUSE(refuse_rounding, "this rounding mode is not modelled on this architecture");
SFPI_REFUSE(refuse_shflshr1, "sfpi::subvec_shflshr1 shifts in a wrong lane on Wormhole (a fault of the chip)");
SFPI_REFUSE(refuse_sfpmad_mod, "__builtin_rvtt_sfpmad with a mod other than 0 is not modelled");
SFPI_REFUSE(refuse_sfpgt, "__builtin_rvtt_sfpgt is not modelled");
}  // namespace impl_

enum class LutSign { Update, Retain };
enum class FractionalHalf { Low, High };

}  // namespace sfpi
