// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// What the FPU does: it adds bfloat16 rows up, copies them to Dest, and multiplies them by gamma.
//
// bfloat16 passes SrcA and SrcB unchanged, and the FPU accumulates in float32 in Dest: it rounds both terms to float32's
// last place at the greater of their exponents, then their sum (reference.py). A product takes the four fidelity phases,
// each an exact product of parts of the two numbers, so that a sum of x^2 is rounded by these additions alone. Those of
// x * gamma (gamma_on_fpu) are exact.
//
// Phase 0, which multiplies the leading bits, comes last. The FPU treats exponent 255 as an ordinary one (on ttsim and
// wolfpine; the ISA documentation leaves it open): infinities and NaNs are numbers from 2^128 on. Their product, or one
// beyond 2^128, becomes an infinity in Dest. Were another phase of the same product added to that, the FPU would align
// the two by exponent, and where the phase's bits are all zero but its exponent is the greater one, shift the infinity
// out and leave zero. With phase 0 last, an infinity, a NaN or a square that overflows makes its row's sum of x^2 an
// infinity, whatever is added before or after.
#pragma once

#include "lltt.h"
#include "unpacker.h"

namespace layernorm {

// FPU address modes: what each instruction adds to its counters. Wormhole's instructions have two bits to name one, so
// there are four. The phase counts modulo 4.
constexpr uint32_t next_half_face = ADDR_MOD_0;  // of SrcA and Dest
constexpr uint32_t next_phase = ADDR_MOD_1;
constexpr uint32_t next_sources = ADDR_MOD_2;  // the next half face of SrcA and SrcB, in RMSNorm the next phase; Dest stays
// The next half face of SrcA and Dest and the next phase; of sticks the next one of SrcB, too
constexpr uint32_t next_product = ADDR_MOD_3;
static_assert(next_product < 4, "budget of FPU address modes (compute.cpp): Wormhole has four");

inline void configure_fpu() {
    constexpr uint8_t rows = half_face_dest_rows;  // of SrcA, SrcB and Dest alike
    addr_mod_t{.srca = {.incr = rows}, .dest = {.incr = rows}}.set(next_half_face);
    addr_mod_t{.fidelity = {.incr = 1}}.set(next_phase);
    addr_mod_t{.srca = {.incr = rows}, .srcb = {.incr = rows}, .fidelity = {.incr = subtract_mean ? 0 : 1}}.set(
        next_sources);
    addr_mod_t{.srca = {.incr = rows},
               .srcb = {.incr = by_tiles ? uint8_t(0) : rows},
               .dest = {.incr = rows},
               .fidelity = {.incr = 1}}
        .set(next_product);
    TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_ABD_F);
}

// Gives SrcA and SrcB back to the unpackers.
inline void done_with_sources() { TTI_SETRWC(p_setrwc::CLR_AB, 0, 0, 0, 0, p_setrwc::SET_AB); }

// Instructions in the replay buffer, which issues one a cycle: a RISC-V core that ran their loop would be slower.
struct Sequence {
    uint32_t first, length;
    template <class Issue>
    void record(Issue issue) const {
        lltt::record(first, length);
        issue();
    }
    void replay(uint32_t times = 1) const {
        for (; times > 0; --times) {
            lltt::replay(first, length);
        }
    }
    // The first `part` of `parts` of equal length.
    void replay_part(uint32_t part, uint32_t parts) const { lltt::replay(first, length / parts * part); }
};

constexpr uint32_t replays = piece_half_faces > 4 ? 2 : 1;  // of the FPU's sequences, for a piece
constexpr uint32_t replayed_half_faces = piece_half_faces / replays;
constexpr Sequence unpack_sources{0, 2};
constexpr Sequence add_half_faces{2, replayed_half_faces * (subtract_mean ? 5 : 4)};
constexpr Sequence copy_half_faces{add_half_faces.first + add_half_faces.length, replayed_half_faces};
constexpr Sequence multiply_half_face{copy_half_faces.first + copy_half_faces.length, gamma_on_fpu ? 4 : 0};
static_assert(multiply_half_face.first + multiply_half_face.length <= 32,
              "budget of replay slots (compute.cpp): the sequences exceed the buffer's 32");

inline void record_sequences() {
    // The next piece of x into both sources
    unpack_sources.record([] {
        unpack_piece<SrcA, by_tiles ? 2 * next_piece : next_piece>();
        unpack_piece<SrcB, by_tiles ? 2 * next_piece : next_piece>();
    });
    // The sources into a row's sums: LayerNorm's 2 x, and x^2 in phases 1, 2, 3 and 0. An ELWADD is right in phase 0 alone,
    // so LayerNorm's half faces begin and end there: the ELWADD moves on to phase 1, and the multiplications come round to
    // 0. RMSNorm's begin and end in phase 1. Of sticks, a row's half faces have the same sums; of a stripe, a face's two have
    // their own; of a quad, each tile of a chunk has.
    add_half_faces.record([] {
#pragma GCC unroll 4
        for (uint32_t i = 0; i < replayed_half_faces; ++i) {
            constexpr uint32_t sets = rows_are_striped ? 2 : by_tiles ? 4 : 1;
            const uint32_t sums = i % sets * row_sums_dest_rows, squares = sums + half_face_dest_rows;
            if constexpr (subtract_mean) {
                TTI_ELWADD(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_EN, p_elwise::SRCB_NO_BCAST, next_phase, sums);
            }
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, p_elwise::SRCB_NO_BCAST, next_phase, squares);
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, p_elwise::SRCB_NO_BCAST, next_phase, squares);
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, p_elwise::SRCB_NO_BCAST, next_phase, squares);
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, p_elwise::SRCB_NO_BCAST, next_sources, squares);
        }
    });
    // SrcA into Dest. The FPU adds a SrcB of zeros, since its moves from SrcA do not write float32.
    copy_half_faces.record([] {
#pragma GCC unroll 4
        for (uint32_t i = 0; i < replayed_half_faces; ++i) {
            TTI_ELWADD(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_half_face, 0);
        }
    });
    // SrcA times SrcB, of tiles times a row of it, added to Dest, in phases 1, 2, 3 and 0: it must start in phase 1, and
    // ends there.
    if constexpr (gamma_on_fpu) {
        multiply_half_face.record([] {
            constexpr uint32_t broadcast = by_tiles ? p_elwise::SRCB_BCAST_ROW : p_elwise::SRCB_NO_BCAST;
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, broadcast, next_phase, 0);
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, broadcast, next_phase, 0);
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, broadcast, next_phase, 0);
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, broadcast, next_product, 0);
        });
    }
}

// Adds up the rows of a group while another group is normalized, some pieces at a time.
class Sums {
public:
    explicit Sums(uint32_t steps) : steps(steps) {}

    // ring_piece: the group's first in the ring; rows: of the group; pages: those in front of it that the CB still holds
    void start(uint32_t ring_piece, uint32_t rows, uint32_t pages) {
        next = ring_piece;
        pieces_left = rows * steps;
        pages_in_front = pages;
        row = piece = arrived = 0;
    }

    // Adds what is left, and hands the sums to the SFPU. Only then, even if they were complete earlier: the SFPU takes
    // `filled` for the sections of the group before, and tells sums from sections by their order alone.
    void finish() {
        add_pieces(pieces_left);
        if (row != 0) {  // else there is no next group, and nobody waits for its sums
            give<filled, p_stall::MATH>();
        }
    }

    // Adds `count` pieces at most, as far as they have arrived.
    void add_arrived(uint32_t count) {
        arrived = pages_arrived();
        const uint32_t ready = arrived - pages_in_front;
        const uint32_t possible = ready < pieces_left ? ready : pieces_left;
        add_pieces(possible < count ? possible : count);
    }

private:
    // Pages of cb_source that hold pieces.
    static uint32_t pages_arrived() {
        const auto& interface = get_local_cb_interface(cb_source);
        const uint32_t received = reg_read(reinterpret_cast<uint32_t>(get_cb_tiles_received_ptr(cb_source)));
        const uint32_t arrived = static_cast<uint16_t>(received - interface.tiles_acked);
        ASSERT(arrived * interface.fifo_page_size <= interface.fifo_size);
        return arrived;
    }

    // Unpacks the next piece into both sources when it is there. Looks only for what had not arrived when it last looked:
    // with a look a piece, this thread would be slower than the FPU.
    void unpack_next() {
        ++pages_in_front;
        while (arrived < pages_in_front) {
            arrived = pages_arrived();
        }
        unpack_sources.replay();
    }

    void add_pieces(uint32_t count) {
        if (count == 0) {
            return;
        }
        pieces_left -= count;
        set_counter(p_setadc::UNP_AB, p_setadc::SET_Z, 0);
        set_counter(p_setadc::UNP_AB, p_setadc::SET_Y, next);
        next += count;
        unpack_next();
        TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
        set_dest_base(sums_dest_row + row * row_sums_dest_rows);
        if (!subtract_mean && piece != 0) {
            // Only an address mode moves the phase. This ELWADD is there for that: it writes where LayerNorm's sums of 2 x
            // would lie.
            TTI_ELWADD(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_phase, 0);
        }
        for (; count > 0; --count) {
            if (piece == 0) {
                start_row();
            }
            if (count > 1) {  // the next piece is unpacked while this one is added
                unpack_next();
            }
            add_half_faces.replay(replays);
            done_with_sources();
            if (++piece == steps) {
                piece = 0;
                ++row;
            }
        }
        if constexpr (!subtract_mean) {
            TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_F);
        }
    }

    // Clears a row's sums, by x - x: the sources hold the row's first piece, and an ELWSUB without accumulation
    // overwrites. RMSNorm's, in phase 0 as each ELWSUB, moves on to phase 1.
    void start_row() {
        if (row == 0) {
            take<free_sums>();
        }
        set_dest_base(sums_dest_row + row * row_sums_dest_rows);
        if constexpr (subtract_mean) {
            TTI_ELWSUB(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_sources, 0);
            TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_AB);
            TTI_ELWSUB(
                p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_sources, half_face_dest_rows);
            TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_AB);
        } else {
            TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_F);
            TTI_ELWSUB(
                p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_phase, half_face_dest_rows);
        }
    }

    uint32_t steps;
    uint32_t next = 0, pieces_left = 0, pages_in_front = 0, arrived = 0, row = 0, piece = 0;
};

}  // namespace layernorm
