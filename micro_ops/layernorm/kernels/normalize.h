// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// The result of a section's rows: in bfloat16 x * (1 / std) - mean / std, in float32 (x - mean) * (1 / std); times
// gamma, plus beta.
#pragma once

#include "vectors.h"

namespace layernorm {

// What lies in scale_vector in place of 1 / std, for tests
constexpr bool taps_statistic = tap == Tap::mean || tap == Tap::variance || tap == Tap::inverse_std;

// float32 LayerNorm with beta and no gamma: SFPI's compiler contracts (x - mean) * scale + beta into one SFPMAD however
// it is written. So that the stand-in gives the same bits, `scale_and_shift` has it as one expression.
constexpr bool scales_with_beta = tap == Tap::none && subtract_mean && input_float32 && uses_beta && !gamma_on_sfpu;

// x without its row's mean, times 1 / std. mean is used of float32 rows alone, shift (-mean / std) of bfloat16 rows
// alone.
sfpi_inline vFloat standardize(vFloat x, vFloat scale, vFloat mean, vFloat shift) {
    if constexpr (tap == Tap::input) {
        return x;
    } else if constexpr (taps_statistic) {
        return scale;
    } else if constexpr (scales_with_beta) {
        return x - mean;
    } else if constexpr (subtract_mean && input_float32) {
        return (x - mean) * scale;
    } else if constexpr (subtract_mean) {
        return x * scale + shift;
    } else if constexpr (round_before_gamma) {
        return convert<vFloat16b>(x * scale, RoundMode::Nearest);
    } else {
        return x * scale;
    }
}

sfpi_inline vFloat scale_and_shift(vFloat y, vFloat scale, vFloat gamma, vFloat beta) {
    if constexpr (scales_with_beta) {
        return y * scale + beta;
    } else if constexpr (gamma_on_sfpu && uses_beta) {
        return y * gamma + beta;
    } else if constexpr (gamma_on_sfpu) {
        return y * gamma;
    } else if constexpr (uses_beta) {
        return y + beta;
    } else {
        return y;
    }
}

// Live at once in the two functions below: for each of two vectors x (then y, then z); 1 / std, and the mean or shift, of
// one row or of two; gamma and beta of one column or of two.
constexpr uint32_t row_lregs = subtract_mean ? 2 : 1;
constexpr uint32_t column_lregs = (gamma_on_sfpu ? 1 : 0) + (uses_beta ? 1 : 0);
static_assert(2 + 2 * row_lregs + column_lregs <= lregs, "budget of LREGs (compute.cpp): two rows need a ninth");
static_assert(2 + row_lregs + 2 * column_lregs <= lregs, "budget of LREGs (compute.cpp): two columns need a ninth");

// Two rows of a section at a time, which share gamma and beta. They are interleaved because SFPMAD takes two cycles: the
// other row's instruction stands between two that depend on one another.
template <uint32_t row>
void normalize_two_rows(uint32_t section) {
    set_dest_base(0);
    vFloat scale_a = dst_reg[scale_vector(row)], scale_b = dst_reg[scale_vector(row + 1)];
    vFloat mean_a = load_if(subtract_mean && input_float32, row_mean_vector(row), scale_a);
    vFloat mean_b = load_if(subtract_mean && input_float32, row_mean_vector(row + 1), scale_b);
    vFloat shift_a = load_if(subtract_mean && !input_float32, shift_vector(row), scale_a);
    vFloat shift_b = load_if(subtract_mean && !input_float32, shift_vector(row + 1), scale_b);
    set_dest_base(section);
#pragma GCC unroll 32
    for (uint32_t v = 0; v < piece_vectors; ++v) {
        const uint32_t at_a = row * piece_vectors + v, at_b = at_a + piece_vectors;
        vFloat x_a = dst_reg[at_a];
        vFloat x_b = dst_reg[at_b];
        vFloat y_a = standardize(x_a, scale_a, mean_a, shift_a);
        vFloat y_b = standardize(x_b, scale_b, mean_b, shift_b);
        vFloat gamma = load_if(gamma_on_sfpu, gamma_vector + v, y_a);
        vFloat beta = load_if(uses_beta, beta_vector + v, y_a);
        vFloat z_a = scale_and_shift(y_a, scale_a, gamma, beta);
        vFloat z_b = scale_and_shift(y_b, scale_b, gamma, beta);
        dst_reg[at_a] = z_a;
        dst_reg[at_b] = z_b;
    }
}

// A row alone: two of its vectors are interleaved. The statistics are loaded once for all of its steps.
sfpi_inline void normalize_one_row(uint32_t section, vFloat scale, vFloat mean, vFloat shift) {
    set_dest_base(section);
#pragma GCC unroll 16
    for (uint32_t v = 0; v < piece_vectors; v += 2) {
        vFloat x_a = dst_reg[v];
        vFloat x_b = dst_reg[v + 1];
        vFloat y_a = standardize(x_a, scale, mean, shift);
        vFloat y_b = standardize(x_b, scale, mean, shift);
        vFloat gamma_a = load_if(gamma_on_sfpu, gamma_vector + v, y_a);
        vFloat gamma_b = load_if(gamma_on_sfpu, gamma_vector + v + 1, y_b);
        vFloat beta_a = load_if(uses_beta, beta_vector + v, y_a);
        vFloat beta_b = load_if(uses_beta, beta_vector + v + 1, y_b);
        vFloat z_a = scale_and_shift(y_a, scale, gamma_a, beta_a);
        vFloat z_b = scale_and_shift(y_b, scale, gamma_b, beta_b);
        dst_reg[v] = z_a;
        dst_reg[v + 1] = z_b;
    }
}

}  // namespace layernorm
