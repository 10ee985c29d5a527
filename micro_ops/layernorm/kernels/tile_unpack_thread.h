// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// The unpack thread of tiles: adds rows up, and brings tile after tile into Dest; with a residual, before that, tile
// after tile of x and of the residual.
//
// bfloat16 rows are added up by quads, whose sums the SFPU takes. If cores share them, by stripes (dest.h): the packer
// takes the sums of this core's, and the sums of this core's quads, which other cores have sent, are then brought into
// Dest. float32 is added up by the SFPU, to which quads are brought.
//
// It issues the FPU's instructions, too, as for sticks (unpack_thread.h).
#pragma once

#include "fpu.h"
#include "tiles.h"
#include "unpacker.h"

namespace layernorm {

// Of gamma and beta, from 16 columns to the next, in elements.
constexpr uint32_t gamma_stride = get_named_compile_time_arg_val("gamma_stride");
constexpr uint32_t beta_stride = get_named_compile_time_arg_val("beta_stride");

// Steps of counter Y, which counts faces of L1.
constexpr uint32_t next_face = next_piece, next_tile = (tile_faces - 1) * next_piece;
static_assert(tile_faces - 1 <= 3, "UNPACR adds up to 3 to a counter");

// Sets both unpackers up so that counter Y counts faces in L1. Where they write to, unpacker 0's Y counts rows of SrcA or
// Dest, as the LLK sets it, and unpacker 1's Z four rows of SrcB.
inline void configure_tile_unpack() {
    volatile uint32_t tt_reg_ptr* cfg = get_cfg_pointer();
    constexpr uint32_t low_half = 0xffff;
    cfg[THCON_SEC0_REG5_Tile_x_dim_cntx0_ADDR32] = face_elements | face_elements << 16;
    cfg[THCON_SEC1_REG0_TileDescriptor_ADDR32] =
        (cfg[THCON_SEC1_REG0_TileDescriptor_ADDR32] & low_half) | face_elements << 16;
    cfg[UNP1_ADDR_CTRL_ZW_REG_1_Zstride_ADDR32] = quad_dest_rows * 16 * sizeof(uint16_t);  // each kernel sets it anew
}

// What the next UNPACR of `unpackers` takes of L1, in elements from the base, and the row that it writes to.
inline void set_source(uint32_t unpackers, uint32_t element, uint32_t count) {
    const uint32_t x = element % face_elements;
    TT_SETADCXX(unpackers, x + count - 1, x);
    set_counter(unpackers, p_setadc::SET_Y, element / face_elements);
}
inline void set_target(uint32_t row) { TT_SETADC(p_setadc::UNP_A, p_setadc::CH_1, p_setadc::SET_Y, row); }
inline void set_srcb_quad(uint32_t quad) { TT_SETADC(p_setadc::UNP_B, p_setadc::CH_1, p_setadc::SET_Z, quad); }

// ---- Sums of a quad

// A quad's quarter faces in tile `i` of a chunk, one below the other in the sources: a half face.
template <uint32_t i>
inline void unpack_quarter_faces(uint32_t tiles) {
    if (i < tiles) {
        TTI_SETADC(p_setadc::UNP_A, p_setadc::CH_1, p_setadc::SET_Y, i * half_face_dest_rows);
        TTI_SETADC(p_setadc::UNP_B, p_setadc::CH_1, p_setadc::SET_Z, 2 * i);
        unpack_piece<SrcA, next_face, false>();
        unpack_piece<SrcB, next_face, false>();
        TTI_SETADC(p_setadc::UNP_A, p_setadc::CH_1, p_setadc::SET_Y, i * half_face_dest_rows + quad_dest_rows);
        TTI_SETADC(p_setadc::UNP_B, p_setadc::CH_1, p_setadc::SET_Z, 2 * i + 1);
        if (i + 1 == tiles) {
            unpack_piece<SrcA, next_tile>();
            unpack_piece<SrcB, next_tile>();
        } else {
            unpack_piece<SrcA, next_tile, false>();
            unpack_piece<SrcB, next_tile, false>();
        }
    }
}

// Brings a chunk of a quad into both sources.
inline void unpack_chunk(uint32_t tiles) {
    if constexpr (rows_are_gathered) {
        unpack_sources.replay();
    } else {
        unpack_quarter_faces<0>(tiles);
        unpack_quarter_faces<1>(tiles);
        unpack_quarter_faces<2>(tiles);
        unpack_quarter_faces<3>(tiles);
    }
}

// Clears `sets` half faces of sums, and where LayerNorm's are of squares, too, by x - x of a half face that the sources
// hold: an ELWSUB without accumulation overwrites.
template <uint32_t sets>
inline void clear_sums() {
#pragma GCC unroll 4
    for (uint32_t i = 0; i < sets; ++i) {
        if constexpr (subtract_mean) {
            TTI_ELWSUB(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_phase,
                       i * row_sums_dest_rows);
            TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_F);
        }
        TTI_ELWSUB(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_phase,
                   i * row_sums_dest_rows + half_face_dest_rows);
        TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_F);
    }
}

// Adds what the sources hold, so many half faces of a chunk's four, and gives them back. RMSNorm's chunks begin and end in
// phase 1.
inline void add_chunk(uint32_t half_faces) {
    if (half_faces == replayed_half_faces) {
        add_half_faces.replay();
    } else {
        add_half_faces.replay_part(half_faces, replayed_half_faces);
    }
    done_with_sources();
}

// Only an address mode moves the phase to RMSNorm's 1. This ELWADD is there for that: it writes where LayerNorm's sums of 2 x
// would lie.
inline void start_phases() {
    if constexpr (!subtract_mean) {
        TTI_ELWADD(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_phase, 0);
    }
}
inline void end_phases() {
    if constexpr (!subtract_mean) {
        TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_F);
    }
}

// Points the unpackers at a quad: in its tiles, from `tile` of cb_source on, or at `page` of cb_rows.
template <uint32_t unpackers>
inline void select_quad(uint32_t quad, uint32_t tile, uint32_t page) {
    if constexpr (rows_are_gathered) {
        set_source(unpackers, page * chunk_tiles * 2 * quarter_face_elements, chunk_tiles * 2 * quarter_face_elements);
        set_target(0);
        set_srcb_quad(0);
    } else {
        const uint32_t face = tile * tile_faces + quad / face_quads * 2;
        set_source(unpackers, face * face_elements + quad % face_quads * quarter_face_elements, quarter_face_elements);
    }
}

inline void start_sums(uint32_t sum_set = 0) {
    take<free_sums>();
    set_dest_base(sums_dest_row + sum_set);
    TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
}

inline void add_quad(const Tiles& tiles, uint32_t quad, uint32_t tile, uint32_t page, uint32_t sum_set) {
    set_base<SrcB>(rows_are_gathered ? rows_base : input_base);
    select_quad<p_setadc::UNP_AB>(quad, tile, page);
    start_sums(sum_set);
    uint32_t here = tiles_of_chunk(tiles, 0), left = tiles.across - here;  // tiles in the sources, and behind them
    unpack_chunk(here);
    clear_sums<chunk_tiles>();
    start_phases();
    while (left > 0) {
        const uint32_t next = left < chunk_tiles ? left : chunk_tiles;
        unpack_chunk(next);  // while the one before is added
        add_chunk(here);
        here = next;
        left -= next;
    }
    add_chunk(here);
    end_phases();
    give<filled, p_stall::MATH>();
}

// ---- Sums of a stripe

// Adds up this core's stripes of a row, and hands the sums of each to the packer. It has freed both sections first, so that it
// is done with the row before, and takes `normalized` for what it is.
inline void add_stripes(const Tiles& tiles, uint32_t row) {
    const uint32_t pages = (tiles.across + row_stripes - 1) / row_stripes, stripes = tiles.stripes_of(row);
    uint32_t page = 0;  // of two faces
    if (tiles.first_stripe >= stripes) {
        return;
    }
    wait_for_all_sections();
    select_operand<false>(rows_base, cb_input);
    set_base<SrcB>(rows_base);
    set_target(0);
    set_srcb_quad(0);
    for (uint32_t stripe = tiles.first_stripe; stripe < stripes; stripe += tiles.stripe_stride, page += pages) {
        start_sums();
        unpack_zeros<SrcA>();
        unpack_zeros<SrcB>();
        clear_sums<2>();
        start_phases();
        done_with_sources();
        set_source(p_setadc::UNP_AB, page * chunk_faces * face_elements, chunk_faces * face_elements);
        llk_wait_tiles(cb_rows, tiles.rows_pages);
        const uint32_t faces = (2 * tiles.across + row_stripes - 1 - stripe % row_stripes) / row_stripes;
        if (faces != 0) {
            uint32_t left = faces;
            unpack_sources.replay();
            for (; left > chunk_faces; left -= chunk_faces) {
                unpack_sources.replay();  // while the chunk before is added
                add_chunk(2 * chunk_faces);
            }
            add_chunk(2 * left);
        }
        end_phases();
        give<normalized, p_stall::MATH>();
    }
    llk_pop_tiles(cb_rows, tiles.rows_pages);
}

// Brings the sums of this core's quads, which the adders of their stripes have sent, to Dest one after another.
inline void unpack_sums(const Tiles& tiles, uint32_t row) {
    const uint32_t quads = tiles.quads_of(row);
    if (tiles.first_quad >= quads) {
        return;
    }
    select_operand<true>(sums_base, cb_sums);
    set_target(sums_dest_row);
    uint32_t page = 0;
    for (uint32_t quad = tiles.first_quad; quad < quads; quad += tiles.quad_stride, ++page) {
        set_source(p_setadc::UNP_A, page * tile_dest_rows * 16, tile_dest_rows * 16);
        take<free_sums>();
        llk_wait_tiles(cb_sums, tiles.sums_pages);
        unpack_piece<SrcA, stay, false>();
        give<filled, p_stall::UNPACK0>();
    }
    llk_pop_tiles(cb_sums, tiles.sums_pages);
}

// ---- float32: the SFPU adds up, chunk by chunk in a section, a quad's quarter faces one below the other

template <uint32_t i>
inline void unpack_quarter_faces_to_dest(uint32_t section, uint32_t tiles) {
    if (i < tiles) {
        set_target(section + i * half_face_dest_rows);
        unpack_piece<SrcA, next_face, false>();
        set_target(section + i * half_face_dest_rows + quad_dest_rows);
        unpack_piece<SrcA, next_tile, false>();
    }
}

inline void send_quad(const Tiles& tiles, uint32_t quad, uint32_t tile, uint32_t page, uint32_t& section) {
    const uint32_t count = chunks(tiles);
    for (uint32_t pass = 0; pass + 1 < passes; ++pass) {
        select_quad<p_setadc::UNP_A>(quad, tile, page);
        for (uint32_t i = 0; i < count; ++i) {
            take<free_sections>();
            if constexpr (rows_are_gathered) {
                set_target(section);
                unpack_piece<SrcA, 2 * next_piece, false>();
            } else {
                const uint32_t of_chunk = tiles_of_chunk(tiles, i);
                unpack_quarter_faces_to_dest<0>(section, of_chunk);
                unpack_quarter_faces_to_dest<1>(section, of_chunk);
                unpack_quarter_faces_to_dest<2>(section, of_chunk);
                unpack_quarter_faces_to_dest<3>(section, of_chunk);
            }
            give<filled, p_stall::UNPACK0>();
            section = other_section(section);
        }
    }
}

// ---- Copies

// The sources' half faces to Dest: each has a source of zeros beside it.
inline void copy_tile() {
    copy_half_faces.replay(tile_half_faces / piece_half_faces);
    done_with_sources();
}

// ---- s = x + residual

// Brings the same tile of x, or of the residual, into Dest's rows behind `row` of a section.
inline void copy_term(uint32_t base, uint32_t section, uint32_t row) {
    set_base<SrcA>(base);
    if constexpr (input_float32) {
        set_target(section + row);
        unpack_piece<SrcA, stay, false>();
    } else {
        unpack_piece<SrcA, stay>();
        unpack_zeros<SrcB>();
        set_dest_base(section + row);
        TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
        copy_tile();
    }
}

// Brings this core's tiles of x and of the residual into sections; `term` is the next one in cb_input and cb_residual.
inline void send_terms(const Tiles& tiles, uint32_t& section, uint32_t& term) {
    select_operand<input_float32>(x_base, cb_input);
    set_target(0);
    for (uint32_t tile = 0; tile < tiles.own; ++tile) {
        llk_wait_tiles(cb_input, 1);
        llk_wait_tiles(cb_residual, 1);
        take<free_sections>();
        set_source(p_setadc::UNP_A, term * tile_faces * face_elements, tile_faces * face_elements);
        copy_term(x_base, section, 0);
        copy_term(residual_base, section, residual_dest_row);
        give<filled, input_float32 ? p_stall::UNPACK0 : p_stall::MATH>();
        section = other_section(section);
        llk_pop_tiles(cb_input, 1);
        llk_pop_tiles(cb_residual, 1);
        term = term + 1 == tiles.ring_terms ? 0 : term + 1;
    }
    if (tiles.term_pages != tiles.own) {  // a shard's pages in front of its next row
        const uint32_t pages = tiles.term_pages - tiles.own;
        llk_pop_tiles(cb_input, pages);
        llk_pop_tiles(cb_residual, pages);
        term = term + pages == tiles.ring_terms ? 0 : term + pages;
    }
}

// ---- Results

// Brings a weight's columns of `tile`, twice 16, into rows 0 and 8 behind `row` of SrcB.
template <uint32_t stride, bool valid>
inline void unpack_weight(uint32_t base, uint32_t tile, uint32_t row) {
    set_base<SrcB>(base);
    set_source(p_setadc::UNP_B, 2 * tile * stride, 16);
    set_srcb_quad(row / quad_dest_rows);
    unpack_piece<SrcB, stay, false>();
    set_source(p_setadc::UNP_B, (2 * tile + 1) * stride, 16);
    set_srcb_quad((row + half_face_dest_rows) / quad_dest_rows);
    unpack_piece<SrcB, stay, valid>();
}

// The sum of SrcA, zeros, and a row of SrcB to all 8 rows of a half face of Dest.
template <uint32_t srcb_row, uint32_t dest_row>
inline void copy_weight_columns() {
    TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, srcb_row % 16, 0, p_setrwc::SET_B);
    if constexpr (srcb_row >= 16) {
        TTI_INCRWC(0, 0, 8, 0);
        TTI_INCRWC(0, 0, 8, 0);
    }
    TTI_ELWADD(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_BCAST_ROW, next_phase, dest_row);
    TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_F);
}

// float32: 16 columns of a weight to four rows of Dest, by as many UNPACRs.
template <uint32_t stride>
inline void unpack_weight_to_dest(uint32_t base, uint32_t cb, uint32_t tile, uint32_t dest_row) {
    select_operand<true>(base, cb);
#pragma GCC unroll 2
    for (uint32_t half = 0; half < 2; ++half) {
        set_source(p_setadc::UNP_A, (2 * tile + half) * stride, 16);
        for (uint32_t row = 0; row < quad_dest_rows; ++row) {
            set_target(dest_row + half * half_face_dest_rows + row);
            unpack_piece<SrcA, stay, false>();
        }
    }
}

// Fills a section with tile `at` of cb_source, and with gamma's and beta's columns of it, this core's `tile`th.
__attribute__((noinline)) void fill_tile(uint32_t section, uint32_t at, uint32_t tile) {
    constexpr bool gamma_copied = gamma_on_sfpu && !gamma_float32, beta_copied = uses_beta && !beta_float32;
    take<free_sections>();
    set_source(p_setadc::UNP_A, at * tile_faces * face_elements, tile_faces * face_elements);
    set_dest_base(section);
    TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
    if constexpr (input_float32) {
        set_target(section);
        unpack_piece<SrcA, stay, false>();
    } else if constexpr (gamma_on_fpu) {
        unpack_zeros<SrcA>();
        unpack_zeros<SrcB>();
        copy_tile();
        set_target(0);
        unpack_piece<SrcA, stay>();
        unpack_weight<gamma_stride, true>(gamma_base, tile, 0);
        TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
        // Moves the phase from 0 to 1, and writes where a gamma for the SFPU would lie, which nobody reads.
        TTI_ELWADD(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_phase, gamma_dest_row);
        for (uint32_t pair = 0; pair < tile_faces / 2; ++pair) {
            TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_B);
            multiply_half_face.replay(2);
            TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, half_face_dest_rows, 0, p_setrwc::SET_B);
            multiply_half_face.replay(2);
        }
        TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_F);
        done_with_sources();
    } else {
        set_target(0);
        unpack_piece<SrcA, stay>();
        unpack_zeros<SrcB>();
        copy_tile();
    }
    if constexpr (gamma_copied || beta_copied) {
        if constexpr (input_float32) {  // the unpackers write to the sources again, not to Dest
            select_operand<false>(gamma_copied ? gamma_base : beta_base, gamma_copied ? cb_gamma : cb_beta);
        }
        unpack_zeros<SrcA>();
        if constexpr (gamma_copied) {
            unpack_weight<gamma_stride, !beta_copied>(gamma_base, tile, 0);
        }
        if constexpr (beta_copied) {
            unpack_weight<beta_stride, true>(beta_base, tile, 16);
        }
        TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
        if constexpr (gamma_copied) {
            copy_weight_columns<0, gamma_dest_row>();
            copy_weight_columns<8, gamma_dest_row + half_face_dest_rows>();
        }
        if constexpr (beta_copied) {
            copy_weight_columns<16, beta_dest_row>();
            copy_weight_columns<24, beta_dest_row + half_face_dest_rows>();
        }
        done_with_sources();
    }
    if constexpr (gamma_on_sfpu && gamma_float32) {
        unpack_weight_to_dest<gamma_stride>(gamma_base, cb_gamma, tile, section + gamma_dest_row);
    }
    if constexpr (uses_beta && beta_float32) {
        unpack_weight_to_dest<beta_stride>(beta_base, cb_beta, tile, section + beta_dest_row);
    }
    give<filled, any_float32 ? p_stall::MATH | p_stall::UNPACK0 : p_stall::MATH>();
    if constexpr ((gamma_on_sfpu && gamma_float32) || (uses_beta && beta_float32) ||
                  (input_float32 && (gamma_copied || beta_copied))) {
        select_operand<input_float32>(input_base, cb_input);
    }
}

// The statistics of all quads of a row of tiles, which the cores that share it have sent to one another; or those of chips. The
// first tiles are in their sections then, so the SFPU is done with the statistics of the row before.
inline void unpack_statistics() {
    select_operand<true>(statistics_base, cb_statistics);
    set_source(p_setadc::UNP_A, 0, takes_statistics ? chips * chip_dest_rows * 16 : tile_quads * quarter_face_elements);
    set_target(takes_statistics ? chips_dest_row : quads_dest_row);
    llk_wait_tiles(cb_statistics, 1);
    unpack_piece<SrcA, stay, false>();
    give<filled, p_stall::UNPACK0>();
    llk_pop_tiles(cb_statistics, 1);
    select_operand<input_float32>(input_base, cb_input);
}

// Hands the sums of this core's quads of a row to the SFPU, or in float32 the quads themselves, for their statistics.
inline void bring_quads(const Tiles& tiles, uint32_t row, uint32_t ring_tile, uint32_t& section, uint32_t& sum_set) {
    const uint32_t pages = chunks(tiles);
    uint32_t page = 0;
    select_operand<input_float32>(rows_are_gathered ? rows_base : input_base, cb_input);
    if constexpr (input_float32) {
        wait_for_all_sections();
    }
    for (uint32_t quad = tiles.first_quad; quad < tiles.quads_of(row); quad += tiles.quad_stride) {
        if constexpr (rows_are_gathered) {
            llk_wait_tiles(cb_rows, pages);
        }
        if constexpr (input_float32) {
            send_quad(tiles, quad, ring_tile, page, section);
        } else {
            add_quad(tiles, quad, ring_tile, page, sum_set);
            sum_set = other_sum_set(sum_set);
        }
        if constexpr (rows_are_gathered) {
            llk_pop_tiles(cb_rows, pages);
            page += pages;
        }
    }
    if (rows_are_gathered && page != 0) {
        llk_wait_tiles(cb_rows, tiles.rows_pages - page);
        llk_pop_tiles(cb_rows, tiles.rows_pages - page);
    }
}

// ring_tiles: that cb_source holds
inline void tile_unpack_thread(const Tiles& tiles, uint32_t ring_tiles) {
    constexpr uint32_t element = input_float32 ? 4 : 2, row_bytes = 16 * sizeof(float);
    assert_cb(cb_source, ring_tiles, tile_faces * face_elements * element);
    ASSERT(tiles.own <= tiles.row_pages && ring_tiles % tiles.row_pages == 0);
    if constexpr (statistics_come) {
        assert_cb(cb_statistics, 1, (takes_statistics ? chips * chip_dest_rows : tile_quads * quad_dest_rows) * row_bytes);
        remember_base(statistics_base, cb_statistics, 0);
    }
    configure_tile_unpack();
    configure_fpu();
    record_sequences();
    remember_base(input_base, cb_source, 0);
    if constexpr (has_residual) {
        assert_cb(cb_input, tiles.ring_terms, tile_faces * face_elements * element);
        assert_cb(cb_residual, tiles.ring_terms, tile_faces * face_elements * element);
        remember_base(x_base, cb_input, 0);
        remember_base(residual_base, cb_residual, 0);
    }
    if constexpr (uses_gamma) {
        remember_base(gamma_base, cb_gamma, 0);
    }
    if constexpr (uses_beta) {
        remember_base(beta_base, cb_beta, 0);
    }
    if constexpr (rows_are_gathered) {
        remember_base(rows_base, cb_rows, 0);
    }
    if constexpr (rows_are_striped) {
        remember_base(sums_base, cb_sums, 0);
    }
    unpack_to<input_float32>();

    uint32_t section = 0, sum_set = 0, ring_tile = 0, term = 0;
    for (uint32_t row = 0; row < tiles.rows; ++row) {
        if constexpr (has_residual) {
            send_terms(tiles, section, term);
        }
        if constexpr (!rows_are_gathered) {
            llk_wait_tiles(cb_source, tiles.row_pages);
        }
        if constexpr (rows_are_striped) {
            add_stripes(tiles, row);
            unpack_sums(tiles, row);
        } else if constexpr (!takes_statistics) {
            bring_quads(tiles, row, ring_tile, section, sum_set);
        }
        if constexpr (rows_are_gathered) {
            llk_wait_tiles(cb_source, tiles.row_pages);
        }
        if constexpr (rows_are_gathered && emits_statistics) {  // the row is done when all have its statistics (gather.h)
            llk_wait_tiles(cb_statistics, 1);
            llk_pop_tiles(cb_statistics, 1);
        }
        if constexpr (statistics_come) {
            select_operand<input_float32>(input_base, cb_input);
        }
        for (uint32_t tile = 0; !emits_statistics && tile < tiles.own; ++tile) {
            if (statistics_come && tile == sections) {
                unpack_statistics();
            }
            if (row == 0) {
                if constexpr (uses_gamma) {
                    llk_wait_tiles(cb_gamma, tile + 1);
                }
                if constexpr (uses_beta) {
                    llk_wait_tiles(cb_beta, tile + 1);
                }
            }
            fill_tile(section, ring_tile + tile, tile);
            section = other_section(section);
        }
        if (statistics_come && !emits_statistics && tiles.own <= sections) {
            unpack_statistics();
        }
        llk_pop_tiles(cb_source, tiles.row_pages);
        ring_tile = ring_tile + tiles.row_pages == ring_tiles ? 0 : ring_tile + tiles.row_pages;
    }
    leave();
}

}  // namespace layernorm
