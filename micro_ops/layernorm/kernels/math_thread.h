// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// The math thread: LayerNorm's arithmetic on the SFPU, in float32, over what lies in Dest (dest.h).
#pragma once

#include "ckernel_sfpu.h"
#include "normalize.h"
#include "statistics.h"

namespace layernorm {

inline void configure_sfpu() {
    sfpu::_init_sfpu_config_reg();
    // SFPLOAD and SFPSTORE name mode 3 on Wormhole and 7 on Blackhole: neither may move a counter.
    addr_mod_t{}.set(ADDR_MOD_3);
    addr_mod_t{}.set(ADDR_MOD_7);
    math::reset_counters(p_setrwc::SET_ABD_F);
    set_dest_base(0);
}

// Normalizes a group's sections, one a step.
template <class NormalizeSection>
sfpi_inline void normalize_steps(uint32_t steps, uint32_t& section, NormalizeSection normalize_section) {
    for (uint32_t step = 0; step < steps; ++step) {
        take<filled>();
        normalize_section();
        give<normalized, p_stall::WAIT_SFPU>();
        section = other_section(section);
    }
}

inline void start_math(const MathArguments& arguments) {
    configure_sfpu();
    vConstFloatPrgm0 = scalar(arguments.inverse_divisor_bits);
    vConstFloatPrgm1 = scalar(arguments.divisor_bits);
    vConstFloatPrgm2 = scalar(arguments.epsilon_bits);
    store_lane_counts(arguments);
    if constexpr (sum_sets == 2) {
        set_dest_base(sum_set_dest_rows);
        store_lane_counts(arguments);
        set_dest_base(0);
    }

    // Both other threads begin with a wait for a semaphore to leave zero. One that an earlier kernel left above zero
    // would let them go on before the values below are set.
    ASSERT(semaphore_read(filled) == 0);
    ASSERT(semaphore_read(normalized) == 0);
    ASSERT(semaphore_read(free_sums) == 0);
    ASSERT(semaphore_read(free_sections) == 0);
    if constexpr (emits_statistics) {
        ASSERT(semaphore_read(free_emission) == 0);
        t6_semaphore_init(free_emission, 1, semaphore::SEMAPHORE_MAX_VALUE);
    }
    t6_semaphore_init(filled, 0, semaphore::SEMAPHORE_MAX_VALUE);
    t6_semaphore_init(normalized, 0, semaphore::SEMAPHORE_MAX_VALUE);
    t6_semaphore_init(free_sums, sum_sets, semaphore::SEMAPHORE_MAX_VALUE);
    t6_semaphore_init(free_sections, sections, semaphore::SEMAPHORE_MAX_VALUE);
}

// The sum of x and the residual in the place of x, of a section's first `faces` x 16 Dest rows.
//
// In bfloat16 the packer rounds it, which takes a tie away from zero, where torch takes it to an even last bit. So where that
// bit, 16 of float32, is even, the sum is multiplied by 1 - 2^-24: it becomes the float32 before, a tie rounds down, and all
// else as before. (2^-126, the least normal number, becomes zero.) The factor is made without shifts and integer additions,
// which take two cycles: the bit as the only one of a mantissa is 2^-17 * (1 + odd / 128).
__attribute__((noinline)) void add_residual(uint32_t section, uint32_t faces) {
    const vUInt last_bit = 1 << 16;
    const vFloat to_factor = 1.0f - 0x1p-17f - 0x1p-24f;
    constexpr int exponent = 127 - 17;
    for (uint32_t face = 0; face < faces; ++face) {
        set_dest_base(section + face * 16);
#pragma GCC unroll 4
        for (uint32_t v = 0; v < vector_of(16); v += 2) {
            vFloat x_a = dst_reg[v];
            vFloat residual_a = dst_reg[v + vector_of(residual_dest_row)];
            vFloat x_b = dst_reg[v + 1];
            vFloat residual_b = dst_reg[v + 1 + vector_of(residual_dest_row)];
            vFloat sum_a = x_a + residual_a;
            vFloat sum_b = x_b + residual_b;
            if constexpr (input_float32) {
                dst_reg[v] = sum_a;
                dst_reg[v + 1] = sum_b;
            } else {
                vUInt bit_a = as<vUInt>(sum_a) & last_bit, bit_b = as<vUInt>(sum_b) & last_bit;
                vFloat factor_a = setexp(as<vFloat>(bit_a), exponent) + to_factor;
                vFloat factor_b = setexp(as<vFloat>(bit_b), exponent) + to_factor;
                vFloat less_a = sum_a * factor_a;
                vFloat less_b = sum_b * factor_b;
                dst_reg[v] = less_a;
                dst_reg[v + 1] = less_b;
            }
        }
    }
    set_dest_base(0);
}

// Makes s of a group's pieces, section by section.
inline void add_terms(uint32_t pieces, uint32_t& section) {
    while (pieces > 0) {
        const uint32_t count = pieces < term_pieces ? pieces : term_pieces;
        take<filled>();
        add_residual(section, (count * piece_dest_rows + 15) / 16);
        give<normalized, p_stall::WAIT_SFPU>();
        section = other_section(section);
        pieces -= count;
    }
}

// Lets the unpack thread leave, once the packer has taken the last statistics that are emitted.
inline void end_emission() {
    take<free_emission>();
    give<free_sums, p_stall::NONE>();
}

inline void math_thread(uint32_t rows, Steps steps, const MathArguments& arguments) {
    start_math(arguments);
    uint32_t section = 0;
    for (uint32_t first = 0; first < rows; first += group_rows) {
        if constexpr (has_residual) {
            add_terms(rows_of_group(first, rows) * steps.own, section);
        }
        make_statistics(steps.count, section, arguments.last_piece_elements);
        if constexpr (emits_statistics) {
            continue;
        }
        if constexpr (group_rows == 1) {
            vFloat scale = dst_reg[scale_vector(0)];
            vFloat mean = load_if(subtract_mean && input_float32, row_mean_vector(0), scale);
            vFloat shift = load_if(subtract_mean && !input_float32, shift_vector(0), scale);
            normalize_steps(steps.own, section, [&]() __attribute__((always_inline)) {
                normalize_one_row(section, scale, mean, shift);
            });
        } else {
            normalize_steps(steps.own, section, [&]() __attribute__((always_inline)) {
                normalize_two_rows<0>(section);
                if (rows - first > 2) {
                    normalize_two_rows<2>(section);
                }
            });
        }
    }
    if constexpr (emits_statistics) {
        end_emission();
    }
}

}  // namespace layernorm
