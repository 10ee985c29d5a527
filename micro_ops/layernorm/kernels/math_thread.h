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
    t6_semaphore_init(filled, 0, semaphore::SEMAPHORE_MAX_VALUE);
    t6_semaphore_init(normalized, 0, semaphore::SEMAPHORE_MAX_VALUE);
    t6_semaphore_init(free_sums, sum_sets, semaphore::SEMAPHORE_MAX_VALUE);
    t6_semaphore_init(free_sections, sections, semaphore::SEMAPHORE_MAX_VALUE);
}

inline void math_thread(uint32_t rows, Steps steps, const MathArguments& arguments) {
    start_math(arguments);
    uint32_t section = 0;
    for (uint32_t first = 0; first < rows; first += group_rows) {
        make_statistics(steps.count, section, arguments.last_piece_elements);
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
}

}  // namespace layernorm
