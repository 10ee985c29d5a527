// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// The unpack thread: brings x, gamma and beta into Dest, and adds up the next group's x and x^2 between two steps. With a
// residual, it brings a group's x and residual into Dest first, and adds up what comes back as s meanwhile.
//
// It issues the FPU's instructions, too. The math thread then issues those of the SFPU alone, whose number decides the
// op's time. Unpackers and FPU need no semaphore between them: one thread issues both, in order, and the sources' valid
// bits make the FPU wait for the data.
#pragma once

#include "fpu.h"
#include "unpacker.h"

namespace layernorm {

// Copies `count` pieces to Dest, from row `dest_row` on: one of each row, or `next_piece`s.
template <bool float32, uint32_t next = next_row>
inline void copy_pieces(uint32_t dest_row, uint32_t count) {
    if constexpr (float32) {
        for (uint32_t i = 0; i < count; ++i) {
            TT_SETADC(p_setadc::UNP_A, p_setadc::CH_1, p_setadc::SET_Y, dest_row);
            unpack_piece<SrcA, next, false>();
            dest_row += piece_dest_rows;
        }
    } else {
        set_dest_base(dest_row);
        TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
        for (uint32_t i = 0; i < count; ++i) {
            unpack_piece<SrcA, next>();
            unpack_zeros<SrcB>();
            copy_half_faces.replay(replays);
            done_with_sources();
        }
    }
}

// Puts x * gamma into Dest in x's place.
inline void multiply_pieces(uint32_t dest_row, uint32_t rows, uint32_t step) {
    set_dest_base(dest_row);
    TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
    for (uint32_t r = 0; r < rows; ++r) {
        unpack_zeros<SrcA>();
        unpack_zeros<SrcB>();
        copy_half_faces.replay(replays);
        done_with_sources();
    }
    TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
    set_counter(p_setadc::UNP_B, p_setadc::SET_Y, step);
    set_counter(p_setadc::UNP_B, p_setadc::SET_Z, 0);
    set_base<SrcB>(gamma_base);
    for (uint32_t r = 0; r < rows; ++r) {
        unpack_piece<SrcA, next_row>();
        unpack_piece<SrcB, stay>();
        if (r == 0) {
            // Only an address mode moves the phase from 0 to 1. This ELWADD is there for that: it writes where a gamma
            // for the SFPU would lie, which nobody reads.
            TTI_ELWADD(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_phase, gamma_dest_row);
        }
        multiply_half_face.replay(piece_half_faces);
        done_with_sources();
    }
    TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_F);
    set_base<SrcB>(input_base);
}

inline void wait_for_weights(uint32_t pages) {
    if constexpr (uses_gamma) {
        llk_wait_tiles(cb_gamma, pages);
    }
    if constexpr (uses_beta) {
        llk_wait_tiles(cb_beta, pages);
    }
}

// Brings pieces of x, or of the residual, to Dest, from row `dest_row` on.
inline void copy_terms(uint32_t base, uint32_t ring_piece, uint32_t dest_row, uint32_t count) {
    set_base<SrcA>(base);
    set_counter(p_setadc::UNP_A, p_setadc::SET_Y, ring_piece);
    set_counter(p_setadc::UNP_A, p_setadc::SET_Z, 0);
    copy_pieces<input_float32, next_piece>(dest_row, count);
}

// Brings a group's `pieces` of x and of the residual, from `ring_piece` of cb_input and cb_residual on, into sections; and
// adds up what has come back as s.
inline void send_terms(uint32_t pieces, uint32_t ring_piece, uint32_t& section, Sums& sums) {
    while (pieces > 0) {
        const uint32_t count = pieces < term_pieces ? pieces : term_pieces;
        llk_wait_tiles(cb_input, count);
        llk_wait_tiles(cb_residual, count);
        take<free_sections>();
        copy_terms(x_base, ring_piece, section, count);
        copy_terms(residual_base, ring_piece, section + residual_dest_row, count);
        set_base<SrcA>(input_base);
        give<filled, input_float32 ? p_stall::UNPACK0 : p_stall::MATH>();
        llk_pop_tiles(cb_input, count);
        llk_pop_tiles(cb_residual, count);
        if constexpr (!input_float32) {
            sums.add_arrived(2 * term_pieces);
        }
        section = other_section(section);
        ring_piece += count;
        pieces -= count;
    }
}

// Fills a section with a piece of each of a group's `rows`, which begin at piece `ring_piece` of cb_source, and with gamma's
// and beta's where they are used. Not inlined: the compiler would make the constants of all its instructions before a group's
// first step, 60 RISC-V instructions for which the SFPU waits once the sums are complete.
template <bool weights>
__attribute__((noinline)) void fill_section(uint32_t section, uint32_t ring_piece, uint32_t rows, uint32_t step) {
    take<free_sections>();
    set_counter(p_setadc::UNP_A, p_setadc::SET_Y, ring_piece + step);
    set_counter(p_setadc::UNP_A, p_setadc::SET_Z, 0);
    const auto select_weight = [=]() __attribute__((always_inline)) {
        set_counter(p_setadc::UNP_A, p_setadc::SET_Z, 0);
        if (ring_piece != 0) {  // else Y is at the step already
            set_counter(p_setadc::UNP_A, p_setadc::SET_Y, step);
        }
    };
    if constexpr (gamma_on_fpu) {
        multiply_pieces(section, rows, step);
    } else {
        copy_pieces<input_float32>(section, rows);
    }
    if constexpr (weights && gamma_on_sfpu) {
        select_operand<gamma_float32>(gamma_base, cb_gamma);
        select_weight();
        copy_pieces<gamma_float32>(section + gamma_dest_row, 1);
    }
    if constexpr (weights && uses_beta) {
        select_operand<beta_float32>(beta_base, cb_beta);
        select_weight();
        copy_pieces<beta_float32>(section + beta_dest_row, 1);
    }
    give<filled, any_float32 ? p_stall::MATH | p_stall::UNPACK0 : p_stall::MATH>();
    if constexpr (weights && (gamma_on_sfpu || uses_beta)) {
        select_operand<input_float32>(input_base, cb_input);
    }
}

// Brings a group's statistics of all chips to Dest, from page `page` of cb_statistics, for the SFPU.
inline void unpack_statistics(uint32_t page) {
    constexpr uint32_t elements = 4 * 16;
    take<free_sums>();
    llk_wait_tiles(cb_statistics, 1);
    select_operand<true>(statistics_base, cb_statistics);
    TTI_SETADCXX(p_setadc::UNP_A, elements - 1, 0);
    set_counter(p_setadc::UNP_A, p_setadc::SET_Y, page);
    set_counter(p_setadc::UNP_A, p_setadc::SET_Z, 0);
    TT_SETADC(p_setadc::UNP_A, p_setadc::CH_1, p_setadc::SET_Y, chips_dest_row);
    unpack_piece<SrcA, stay, false>();
    give<filled, p_stall::UNPACK0>();
    llk_pop_tiles(cb_statistics, 1);
    TTI_SETADCXX(p_setadc::UNP_A, piece_elements - 1, 0);
    select_operand<input_float32>(input_base, cb_input);
}

inline void unpack_thread(uint32_t rows, Steps steps, const Rings& rings) {
    constexpr uint32_t piece_size = piece_elements * (input_float32 ? 4 : 2);
    assert_cb(cb_source, has_residual && !output_is_sharded ? rings.stream_pages : rings.rows * steps.count, piece_size);
    configure_unpack(steps.count);
    configure_fpu();
    record_sequences();
    remember_base(input_base, cb_source, 0);
    if constexpr (has_residual) {
        assert_cb(cb_input, rings.term_pages, piece_size);
        assert_cb(cb_residual, rings.term_pages, piece_size);
        remember_base(x_base, cb_input, 0);
        remember_base(residual_base, cb_residual, 0);
    }
    if constexpr (uses_gamma) {
        remember_base(gamma_base, cb_gamma, steps.first);
    }
    if constexpr (uses_beta) {
        remember_base(beta_base, cb_beta, steps.first);
    }
    if constexpr (takes_statistics) {
        assert_cb(cb_statistics, statistics_pages, piece_elements * sizeof(float));
        remember_base(statistics_base, cb_statistics, 0);
    }
    set_base<SrcB>(input_base);
    unpack_to<input_float32>();
    select_operand<input_float32>(input_base, cb_input);

    Sums sums(steps.count);
    uint32_t count = rows_of_group(0, rows);
    constexpr bool adds_ahead = !input_float32 && !has_residual && !takes_statistics;
    if constexpr (adds_ahead) {
        sums.start(0, count, 0);
        sums.finish();
    }

    uint32_t section = 0, statistics_page = 0;
    const uint32_t group_pieces = group_rows * steps.count, ring_pieces = rings.rows * steps.count;
    uint32_t ring_piece = 0, term_piece = 0;
    for (uint32_t first = 0; first < rows; first += group_rows) {
        ASSERT(ring_piece < ring_pieces);
        const uint32_t next_count = rows_of_group(first + count, rows);
        const uint32_t next_ring_piece = ring_piece + group_pieces == ring_pieces ? 0 : ring_piece + group_pieces;
        const uint32_t pages = has_residual ? rings.stream_pages : count * steps.count;
        if constexpr (has_residual) {
            sums.start(ring_piece, count, 0);
            send_terms(count * steps.own, term_piece, section, sums);
            term_piece = term_piece + group_pieces == rings.term_pages ? 0 : term_piece + group_pieces;
        }
        if constexpr (takes_statistics) {
            unpack_statistics(statistics_page);
            statistics_page = statistics_page + 1 == statistics_pages ? 0 : statistics_page + 1;
            llk_wait_tiles(cb_source, pages);
        } else if constexpr (input_float32) {
            wait_for_all_sections();
            llk_wait_tiles(cb_source, pages);
            for (uint32_t i = 0; i < (passes - 1) * steps.count; ++i) {
                fill_section<false>(section, ring_piece, count, i < steps.count ? i : i - steps.count);
                section = other_section(section);
            }
        } else if constexpr (has_residual) {
            sums.finish();
        } else {
            sums.start(next_ring_piece, next_count, pages);
            if constexpr (emits_statistics) {
                sums.finish();
            }
        }
        for (uint32_t step = 0; !emits_statistics && step < steps.own; ++step) {
            if (first == 0) {
                wait_for_weights(step + 1);
            }
            fill_section<true>(section, ring_piece, count, steps.first + step);
            section = other_section(section);
            if constexpr (adds_ahead) {
                if (step == steps.own - 1) {
                    sums.finish();
                } else {
                    // group_rows pieces a step keep pace with the steps; twice as many catch up after a late DRAM read.
                    sums.add_arrived(2 * group_rows);
                }
            }
        }
        llk_pop_tiles(cb_source, pages);
        count = next_count;
        ring_piece = next_ring_piece;
    }
    leave();
}

}  // namespace layernorm
