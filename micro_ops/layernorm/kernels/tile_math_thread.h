// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// The math thread of tiles: the same arithmetic on the SFPU as for sticks (math_thread.h), of a quad's rows at once.
#pragma once

#include "math_thread.h"
#include "tiles.h"

namespace layernorm {

// ---- float32 sums, in the order of sticks: even and odd columns apart; of quarter face n of a quad, those of n + 4, n + 8,
// ... are added to it, one after another.

// x, or (x - mean)^2, of the tile's vector of the columns from `column` on. Of a row's last tile `columns` count.
template <bool squares>
sfpi_inline vFloat add_columns(vFloat sum, vFloat x, vFloat mean, int column, int columns) {
    if constexpr (squares && subtract_mean) {
        if (columns != 32) {  // zero minus the mean is not zero
            v_if(vInt(columns - column) - lane_element() <= 0) { x = mean; }
            v_endif;
        }
        vFloat deviation = x - mean;
        return deviation * deviation + sum;
    } else if constexpr (squares) {
        return x * x + sum;
    } else {
        return sum + x;
    }
}

// Adds the two quarter faces of tile `i` of a chunk to four vectors, the even and the odd columns of each.
template <bool squares, uint32_t i>
sfpi_inline void add_tile(uint32_t section, int columns) {
    constexpr uint32_t x = vector_of(i * half_face_dest_rows), row = i % 2 * 2;
    constexpr uint32_t at[4] = {sum_vector(row), sum_vector(row) + 1, sum_vector(row + 1), sum_vector(row + 1) + 1};
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
        set_dest_base(section);
        vFloat element = dst_reg[x + v];
        set_dest_base(0);
        vFloat sum = dst_reg[at[v]];
        vFloat mean = load_if(squares && subtract_mean, mean_vector, sum);
        vFloat next = add_columns<squares>(sum, element, mean, v / 2 * 16 + v % 2, columns);
        dst_reg[at[v]] = next;
    }
}

// Adds all chunks of a quad, and frees their sections.
template <bool squares>
void add_chunks(const Tiles& tiles, uint32_t& section, int last_columns) {
    set_dest_base(0);
#pragma GCC unroll 4
    for (uint32_t row = 0; row < 4; ++row) {
        dst_reg[sum_vector(row)] = 0.0f;
        dst_reg[sum_vector(row) + 1] = 0.0f;
    }
    const uint32_t count = chunks(tiles);
    for (uint32_t i = 0; i < count; ++i) {
        const uint32_t of_chunk = tiles_of_chunk(tiles, i);
        const bool is_last = i + 1 == count;
        take<filled>();
        add_tile<squares, 0>(section, is_last && of_chunk == 1 ? last_columns : 32);
        if (of_chunk > 1) {
            add_tile<squares, 1>(section, is_last && of_chunk == 2 ? last_columns : 32);
        }
        if (of_chunk > 2) {
            add_tile<squares, 2>(section, is_last && of_chunk == 3 ? last_columns : 32);
        }
        if (of_chunk > 3) {
            add_tile<squares, 3>(section, is_last ? last_columns : 32);
        }
        give<free_sections, p_stall::WAIT_SFPU>();
        section = other_section(section);
    }
}

// Makes a quad's statistics, whose sums are in `sum_set`, and stores them with those that are normalized by, or to be packed.
sfpi_inline void make_quad_statistics(
    const Tiles& tiles, uint32_t quad, uint32_t sum_set, uint32_t& section, int last_columns) {
    vFloat scale;
    if constexpr (input_float32) {
        if constexpr (subtract_mean) {
            add_chunks<false>(tiles, section, last_columns);
            make_mean(Float32Sums{});
        }
        add_chunks<true>(tiles, section, last_columns);
        scale = inverse_sqrt(row_totals(Float32Sums{}) * inverse_divisor + epsilon);
    } else {
        // The sums are given back as soon as they have been read.
        set_dest_base(sum_set);
        take<filled>();
        if constexpr (subtract_mean) {
            vFloat variance = make_variance();
            give<free_sums, p_stall::WAIT_SFPU>();
            scale = inverse_std(variance);
        } else {
            vFloat total = row_totals(
                [](uint32_t row) __attribute__((always_inline)) { return load_sum(square_sum_vector(row)); });
            give<free_sums, p_stall::WAIT_SFPU>();
            scale = inverse_sqrt((total + total) * inverse_divisor + epsilon);
        }
    }
    vFloat shift = load_if(subtract_mean, mean_vector, scale);
    if constexpr (subtract_mean && !input_float32) {
        shift = -(shift * scale);
    }
    set_dest_base((rows_are_gathered ? own_quads_dest_row - quads_dest_row : 0) + quad * quad_dest_rows);
    dst_reg[quad_scale_vector(0)] = scale;
    if constexpr (subtract_mean) {
        dst_reg[quad_shift_vector(0)] = shift;
    }
    set_dest_base(0);
    if constexpr (rows_are_gathered) {
        give<normalized, p_stall::WAIT_SFPU>();
    }
}

// Puts the statistics of a quad that this core has added up with those that have come from others.
inline void keep_own_statistics(uint32_t quad) {
    constexpr uint32_t own = vector_of(own_quads_dest_row - quads_dest_row);
    set_dest_base(quad * quad_dest_rows);
    dst_reg[quad_scale_vector(0)] = vFloat(dst_reg[own + quad_scale_vector(0)]);
    if constexpr (subtract_mean) {
        dst_reg[quad_shift_vector(0)] = vFloat(dst_reg[own + quad_shift_vector(0)]);
    }
    set_dest_base(0);
}

// ---- Results

// The four quads of a face, whose even and odd columns share gammas and betas.
template <uint32_t section, uint32_t face>
sfpi_inline void normalize_face(vFloat gamma_e, vFloat gamma_o, vFloat beta_e, vFloat beta_o) {
#pragma GCC unroll 4
    for (uint32_t q = 0; q < face_quads; ++q) {
        const uint32_t quad = face / 2 * face_quads + q, at = vector_of(section + face * 16 + q * quad_dest_rows);
        vFloat scale = dst_reg[quad_scale_vector(quad)];
        vFloat mean = load_if(subtract_mean && input_float32, quad_shift_vector(quad), scale);
        vFloat shift = load_if(subtract_mean && !input_float32, quad_shift_vector(quad), scale);
        vFloat x_e = dst_reg[at];
        vFloat x_o = dst_reg[at + 1];
        vFloat y_e = standardize(x_e, scale, mean, shift);
        vFloat y_o = standardize(x_o, scale, mean, shift);
        vFloat z_e = scale_and_shift(y_e, scale, gamma_e, beta_e);
        vFloat z_o = scale_and_shift(y_o, scale, gamma_o, beta_o);
        dst_reg[at] = z_e;
        dst_reg[at + 1] = z_o;
    }
}

// Live at once in it: x of even and odd columns (then y, then z), 1 / std, mean or shift, two gammas and two betas.
static_assert(2 + row_lregs + 2 * column_lregs <= lregs, "budget of LREGs (compute.cpp): a tile needs a ninth");

// A tile's quads; if there are no more than four, its upper two faces.
template <uint32_t section, uint32_t column = 0>
sfpi_inline void normalize_tile(uint32_t quads) {
    if constexpr (column < 2) {
        constexpr uint32_t gamma = vector_of(section + gamma_dest_row + column * half_face_dest_rows);
        constexpr uint32_t beta = vector_of(section + beta_dest_row + column * half_face_dest_rows);
        vFloat any = dst_reg[quad_scale_vector(0)];
        vFloat gamma_e = load_if(gamma_on_sfpu, gamma, any), gamma_o = load_if(gamma_on_sfpu, gamma + 1, any);
        vFloat beta_e = load_if(uses_beta, beta, any), beta_o = load_if(uses_beta, beta + 1, any);
        normalize_face<section, column>(gamma_e, gamma_o, beta_e, beta_o);
        if constexpr (tile_faces == 4) {
            if (quads > face_quads) {
                normalize_face<section, column + 2>(gamma_e, gamma_o, beta_e, beta_o);
            }
        }
        normalize_tile<section, column + 1>(quads);
    }
}

template <uint32_t section>
__attribute__((noinline)) void normalize_section(uint32_t quads) {
    normalize_tile<section>(quads);
}

// last_columns: of a row's last tile
inline void tile_math_thread(const Tiles& tiles, const MathArguments& arguments, int last_columns) {
    start_math(arguments);
    uint32_t section = 0, sum_set = 0;
    for (uint32_t row = 0; row < tiles.rows; ++row) {
        const uint32_t quads = tiles.quads_of(row);
        if constexpr (has_residual) {
            for (uint32_t tile = 0; tile < tiles.own; ++tile) {
                take<filled>();
                add_residual(section, tile_faces);
                give<normalized, p_stall::WAIT_SFPU>();
                section = other_section(section);
            }
        }
        for (uint32_t quad = tiles.first_quad; quad < quads; quad += tiles.quad_stride) {
            make_quad_statistics(tiles, quad, sum_set, section, last_columns);
            sum_set = other_sum_set(sum_set);
        }
        set_dest_base(0);
        // Where rows are gathered, the first sections are filled before the statistics have come (tile_unpack_thread.h).
        const uint32_t ahead = rows_are_gathered ? tiles_ahead(tiles) : 0;
        if constexpr (rows_are_gathered) {
            for (uint32_t i = 0; i < ahead + 1; ++i) {
                take<filled>();
            }
            for (uint32_t quad = tiles.first_quad; quad < quads; quad += tiles.quad_stride) {
                keep_own_statistics(quad);
            }
        }
        for (uint32_t tile = 0; tile < tiles.own; ++tile) {
            if (tile >= ahead) {
                take<filled>();
            }
            if (section == 0) {
                normalize_section<0>(quads);
            } else {
                normalize_section<section_dest_rows>(quads);
            }
            give<normalized, p_stall::WAIT_SFPU>();
            section = other_section(section);
        }
    }
}

}  // namespace layernorm
