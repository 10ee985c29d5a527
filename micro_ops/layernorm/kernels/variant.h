// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// What the compute kernels are compiled to compute: LayerNorm or RMSNorm, of which dtypes, in which layout.
#pragma once

#include <cstdint>

#include "agreement.h"

namespace layernorm {

// Whether rows come as tiles, else as sticks.
constexpr bool by_tiles = get_named_compile_time_arg_val("by_tiles");
// Whether rows of tiles are added up from copies in one piece, and their statistics come by way of L1 (tile_compute.cpp).
constexpr bool rows_are_gathered = get_named_compile_time_arg_val("rows_are_gathered");

constexpr uint32_t cb_input = get_named_compile_time_arg_val("cb_input");
constexpr uint32_t cb_gamma = get_named_compile_time_arg_val("cb_gamma");
constexpr uint32_t cb_beta = get_named_compile_time_arg_val("cb_beta");
constexpr uint32_t cb_output = get_named_compile_time_arg_val("cb_output");
constexpr bool output_is_sharded = get_named_compile_time_arg_val("output_is_sharded");  // cb_output, and cb_stream if there is one
// Whether there is a residual: s = x + residual, rounded to the input's dtype, is what is added up and normalized.
constexpr bool has_residual = get_named_compile_time_arg_val("has_residual");
constexpr uint32_t cb_residual = get_named_compile_time_arg_val("cb_residual");
constexpr uint32_t cb_stream = get_named_compile_time_arg_val("cb_stream");  // s
constexpr uint32_t cb_source = has_residual ? cb_stream : cb_input;
// Whether a core has some of a row's columns alone. Then it makes s of these, and its cb_stream gets the others' from them.
constexpr bool rows_are_cut = get_named_compile_time_arg_val("rows_are_cut");
constexpr bool stream_is_sent = rows_are_cut && has_residual;  // as in parts.h

// Of rows whose columns are on several chips, each chip has two launches: one makes the statistics of its columns, and emits
// them; the other takes all chips' statistics, and makes the result.
constexpr bool emits_statistics = get_named_compile_time_arg_val("emits_statistics");
constexpr bool takes_statistics = get_named_compile_time_arg_val("takes_statistics");
// Whether a row of tiles is normalized by statistics that come by way of L1: other cores', or those of chips.
constexpr bool statistics_come = rows_are_gathered || takes_statistics;
constexpr uint32_t cb_own_statistics = get_named_compile_time_arg_val("cb_own_statistics");
constexpr uint32_t cb_statistics = get_named_compile_time_arg_val("cb_statistics");

// What the kernel writes in place of the result, for tests: the same code as far as there. The host defines TAP.
enum class Tap { none, input, mean, variance, inverse_std, standardized, scaled };
constexpr Tap tap = Tap::TAP;
constexpr bool has_gamma = get_named_compile_time_arg_val("has_gamma");
constexpr bool has_beta = get_named_compile_time_arg_val("has_beta");
constexpr bool uses_gamma = has_gamma && (tap == Tap::none || tap == Tap::scaled);
constexpr bool uses_beta = has_beta && tap == Tap::none;
constexpr bool subtract_mean = get_named_compile_time_arg_val("subtract_mean");
static_assert(subtract_mean || !has_beta,
              "an RMSNorm takes no beta: under SFPI x * (1 / std) + beta would become one SFPMAD");
constexpr bool round_before_gamma = get_named_compile_time_arg_val("round_before_gamma");
constexpr bool round_inverse_rms = get_named_compile_time_arg_val("round_inverse_rms");
static_assert(!(subtract_mean && round_inverse_rms), "a LayerNorm has no 1 / rms");
constexpr bool input_float32 = get_named_compile_time_arg_val("input_float32");
// Whether that is by stripes (dest.h), else by quads.
constexpr bool rows_are_striped = get_named_compile_time_arg_val("rows_are_striped");
static_assert(!rows_are_striped || (rows_are_gathered && !input_float32), "float32 is added up twice, quad by quad");
constexpr bool gamma_float32 = get_named_compile_time_arg_val("gamma_float32");
constexpr bool beta_float32 = get_named_compile_time_arg_val("beta_float32");
constexpr bool any_float32 = input_float32 || (uses_gamma && gamma_float32) || (uses_beta && beta_float32);
constexpr bool unpacks_float32 = any_float32 || rows_are_gathered || takes_statistics;  // to Dest
constexpr bool any_bfloat16 = !input_float32 || (uses_gamma && !gamma_float32) || (uses_beta && !beta_float32);
// x * gamma is exact on the FPU, and leaves the SFPU one product, that with 1 / std.
constexpr bool gamma_on_fpu = uses_gamma && !subtract_mean && !round_before_gamma && !any_float32;
constexpr bool gamma_on_sfpu = uses_gamma && !gamma_on_fpu;
}  // namespace layernorm
