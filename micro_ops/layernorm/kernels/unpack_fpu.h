// The unpack thread: brings x, gamma and beta into Dest, and adds up the next group's x and x^2 meanwhile.
//
// It issues the FPU's instructions, too. The math thread then issues those of the SFPU alone, which is what the op's
// time goes to; and unpacker and FPU need no word from each other, since one thread's instructions keep their order.
//
// bfloat16 passes SrcA and SrcB unchanged, and the FPU adds to float32 in Dest. x^2 takes the four fidelity phases,
// each an exact product of parts of x, so that the sums are rounded as float32 sums are and no more. So does x * gamma
// where gamma_on_fpu: x then lies in Dest multiplied.
//
// Phase 0, which multiplies the leading bits, comes last. The FPU takes an exponent of 255 for any other (on ttsim and
// wolfpine; the ISA documentation leaves it open): infinities and NaNs are numbers from 2^128 on. Their product, or one
// beyond 2^128, becomes an infinity in Dest, but a later phase of it whose bits are all zero would shift that out by
// its own, greater exponent, and leave zero. So an infinity, a NaN or a square that overflows makes its row's sum of
// x^2 an infinity, whatever is added before or after.
#pragma once

#include "dest.h"
#include "lltt.h"
#include "llk_unpack_common_api.h"

namespace layernorm {

// What UNPACR adds to its operand's address counters: a row of the ring, or a piece.
constexpr uint32_t next_row = 0b0001, next_piece = 0b0100;

// FPU address modes, of which Wormhole's instructions can name four. The phase counts modulo 4.
constexpr uint32_t next_block = ADDR_MOD_0, next_phase = ADDR_MOD_1, next_sources = ADDR_MOD_2, next_product = ADDR_MOD_3;

// General purpose registers that hold what the unpacker's base register takes for an operand
constexpr uint32_t input_base = p_gpr_unpack::TMP0, gamma_base = p_gpr_unpack::TMP1, beta_base = p_gpr_unpack::TILE_SIZE;

inline void remember_base(uint32_t gpr, uint32_t cb) {
    regfile[gpr] = get_local_cb_interface(cb).fifo_rd_ptr - 1;
    sync_regfile_write(gpr);
}

// Points an unpacker at an operand.
template <uint32_t unpacker>
inline void set_base(uint32_t gpr) {
    constexpr bool is_a = unpacker == SrcA;
    TTI_STALLWAIT(p_stall::STALL_CFG, is_a ? p_stall::UNPACK0 : p_stall::UNPACK1);
    TT_WRCFG(
        gpr, p_cfg::WRCFG_32b, is_a ? THCON_SEC0_REG3_Base_address_ADDR32 : THCON_SEC1_REG3_Base_address_ADDR32);
    TTI_NOP;
}

// Sets both unpackers up so that counter Y counts pieces and counter Z rows of `steps` pieces.
inline void configure_unpack(uint32_t steps) {
    constexpr uint32_t piece = piece_blocks * 128;  // elements
    volatile uint32_t tt_reg_ptr* cfg = get_cfg_pointer();
    constexpr uint32_t low_half = 0xffff;
    const uint32_t rows = steps | 1 << 16;  // Y dimension, and a Z dimension that is not used
    cfg[THCON_SEC0_REG5_Tile_x_dim_cntx0_ADDR32] = piece | piece << 16;
    cfg[THCON_SEC1_REG0_TileDescriptor_ADDR32] =
        (cfg[THCON_SEC1_REG0_TileDescriptor_ADDR32] & low_half) | piece << 16;
    cfg[THCON_SEC0_REG0_TileDescriptor_ADDR32 + 1] = rows;
    cfg[THCON_SEC1_REG0_TileDescriptor_ADDR32 + 1] = rows;
    TTI_SETADCXX(p_setadc::UNP_AB, piece - 1, 0);
}

inline void configure_fpu() {
    addr_mod_t{.srca = {.incr = block_dest_rows}, .dest = {.incr = block_dest_rows}}.set(next_block);
    addr_mod_t{.fidelity = {.incr = 1}}.set(next_phase);
    addr_mod_t{.srca = {.incr = block_dest_rows}, .srcb = {.incr = block_dest_rows}}.set(next_sources);
    addr_mod_t{
        .srca = {.incr = block_dest_rows},
        .srcb = {.incr = block_dest_rows},
        .dest = {.incr = block_dest_rows},
        .fidelity = {.incr = 1}}
        .set(next_product);
    TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_ABD_F);
}

inline void set_counter(uint32_t unpackers, uint32_t dimension, uint32_t value) {
    TT_SETADC(unpackers, p_setadc::CH_0, dimension, value);
}

// valid: for the FPU, which then owns the source
template <uint32_t unpacker, uint32_t step, bool valid = true>
inline void unpack_piece() {
    TTI_UNPACR(unpacker, step, 0, 0, 0, 1, valid, 0, 0, 0, 0, 0, 1);
}

// Gives the FPU a source of zeros.
template <uint32_t unpacker>
inline void unpack_zeros() {
#ifdef ARCH_BLACKHOLE
    TTI_UNPACR_NOP(
        unpacker, 0, 0, p_unpacr_nop::SET_DVALID, 0, p_unpacr_nop::WAIT_LIKE_UNPACR, 0, 0, p_unpacr_nop::UNP_ZEROSRC);
#else
    TTI_UNPACR_NOP(unpacker, p_unpacr_nop::UNP_ZEROSRC);
    TTI_UNPACR_NOP(unpacker, p_unpacr_nop::UNP_SET_DVALID);
#endif
}

inline void done_with_sources() { TTI_SETRWC(p_setrwc::CLR_AB, 0, 0, 0, 0, p_setrwc::SET_AB); }

// What is done again and again is recorded in the replay buffer: a RISC-V core would not issue it fast enough.
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
};

constexpr uint32_t replays = piece_blocks > 4 ? 2 : 1;  // of the FPU's sequences, for a piece
constexpr uint32_t replayed_blocks = piece_blocks / replays;
constexpr Sequence unpack_sources{0, 2};
constexpr Sequence add_blocks{2, replayed_blocks * 5};
constexpr Sequence copy_blocks{add_blocks.first + add_blocks.length, replayed_blocks};
constexpr Sequence multiply_block{copy_blocks.first + copy_blocks.length, gamma_on_fpu ? 4 : 0};
static_assert(multiply_block.first + multiply_block.length <= 32, "the replay buffer holds 32 instructions");

inline void record_sequences() {
    // The next piece of x into both sources
    unpack_sources.record([] {
        unpack_piece<SrcA, next_piece>();
        unpack_piece<SrcB, next_piece>();
    });
    // The sources into a row's sums: 2 x, and x^2 in phases 1, 2, 3 and 0. ELWADD wants phase 0, and leaves 1 behind.
    add_blocks.record([] {
#pragma GCC unroll 4
        for (uint32_t b = 0; b < replayed_blocks; ++b) {
            TTI_ELWADD(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_EN, p_elwise::SRCB_NO_BCAST, next_phase, 0);
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, p_elwise::SRCB_NO_BCAST, next_phase, block_dest_rows);
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, p_elwise::SRCB_NO_BCAST, next_phase, block_dest_rows);
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, p_elwise::SRCB_NO_BCAST, next_phase, block_dest_rows);
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, p_elwise::SRCB_NO_BCAST, next_sources, block_dest_rows);
        }
    });
    // SrcA into Dest. The FPU adds zero, since its moves from SrcA do not write float32.
    copy_blocks.record([] {
#pragma GCC unroll 4
        for (uint32_t b = 0; b < replayed_blocks; ++b) {
            TTI_ELWADD(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_block, 0);
        }
    });
    // SrcA times SrcB added to Dest, in phases 1, 2, 3 and 0; it wants phase 1, and leaves it behind.
    if constexpr (gamma_on_fpu) {
        multiply_block.record([] {
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, p_elwise::SRCB_NO_BCAST, next_phase, 0);
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, p_elwise::SRCB_NO_BCAST, next_phase, 0);
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, p_elwise::SRCB_NO_BCAST, next_phase, 0);
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, p_elwise::SRCB_NO_BCAST, next_product, 0);
        });
    }
}

// Copies a piece of each of `rows` rows to Dest, from row `dest_row` on.
template <bool float32>
inline void copy_pieces(uint32_t dest_row, uint32_t rows) {
    if constexpr (float32) {
        for (uint32_t r = 0; r < rows; ++r) {
            TT_SETADC(p_setadc::UNP_A, p_setadc::CH_1, p_setadc::SET_Y, dest_row);
            unpack_piece<SrcA, next_row, false>();
            dest_row += piece_dest_rows;
        }
    } else {
        set_dest_base(dest_row);
        TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
        for (uint32_t r = 0; r < rows; ++r) {
            unpack_piece<SrcA, next_row>();
            unpack_zeros<SrcB>();
            copy_blocks.replay(replays);
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
        copy_blocks.replay(replays);
        done_with_sources();
    }
    TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
    set_counter(p_setadc::UNP_B, p_setadc::SET_Y, step);
    set_counter(p_setadc::UNP_B, p_setadc::SET_Z, 0);
    set_base<SrcB>(gamma_base);
    for (uint32_t r = 0; r < rows; ++r) {
        unpack_piece<SrcA, next_row>();
        unpack_piece<SrcB, 0>();
        if (r == 0) {  // to phase 1, by a sum that nobody reads, where a gamma for the SFPU would lie
            TTI_ELWADD(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_phase, gamma_dest_row);
        }
        multiply_block.replay(piece_blocks);
        done_with_sources();
    }
    TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_F);
    set_base<SrcB>(input_base);
}

// Adds up a group, a few pieces at a time.
class Sums {
public:
    Sums(uint32_t cb, uint32_t steps) : cb(cb), steps(steps) {}

    // rows: of the group; pages: those in front of it that the CB still holds
    void start(uint32_t first_ring_row, uint32_t rows, uint32_t pages) {
        ring_row = first_ring_row;
        pieces_left = rows * steps;
        pages_in_front = pages;
        row = piece = 0;
    }

    // Adds what is left, and hands the sums over: in their turn, however early they were complete.
    void finish() {
        add_pieces(pieces_left);
        if (row != 0) {
            give<filled, p_stall::MATH>();
        }
    }

    // Adds `count` pieces at most, as far as they have arrived.
    void add_arrived(uint32_t count) {
        const auto& interface = get_local_cb_interface(cb);
        const uint32_t received = reg_read(reinterpret_cast<uint32_t>(get_cb_tiles_received_ptr(cb)));
        const uint32_t arrived = static_cast<uint16_t>(received - interface.tiles_acked) - pages_in_front;
        ASSERT(arrived * interface.fifo_page_size <= interface.fifo_size);  // else fewer have come than were awaited
        const uint32_t possible = arrived < pieces_left ? arrived : pieces_left;
        add_pieces(possible < count ? possible : count);
    }

private:
    void add_pieces(uint32_t count) {
        if (count == 0) {
            return;
        }
        pieces_left -= count;
        set_counter(p_setadc::UNP_AB, p_setadc::SET_Z, ring_row);
        set_counter(p_setadc::UNP_AB, p_setadc::SET_Y, row * steps + piece);
        llk_wait_tiles(cb, ++pages_in_front);
        unpack_sources.replay();
        TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
        set_dest_base(sums_dest_row + row * row_sums_dest_rows);
        for (; count > 0; --count) {
            if (piece == 0) {
                start_row();
            }
            if (count > 1) {  // the next piece is unpacked while this one is added
                llk_wait_tiles(cb, ++pages_in_front);
                unpack_sources.replay();
            }
            add_blocks.replay(replays);
            done_with_sources();
            if (++piece == steps) {
                piece = 0;
                ++row;
            }
        }
    }

    // Clears a row's sums: x - x is zero.
    void start_row() {
        if (row == 0) {
            take<free_sums>();
        }
        set_dest_base(sums_dest_row + row * row_sums_dest_rows);
        TTI_ELWSUB(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_sources, 0);
        TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_AB);
        TTI_ELWSUB(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_sources, block_dest_rows);
        TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_AB);
    }

    uint32_t cb, steps;
    uint32_t ring_row = 0, pieces_left = 0, pages_in_front = 0, row = 0, piece = 0;
};

// Sends what unpacker 0 unpacks to Dest or to SrcA.
template <bool float32>
inline void unpack_to() {
    cfg_reg_rmw_tensix<THCON_SEC0_REG2_Unpack_if_sel_cntx0_RMW>(float32);
    TTI_SETC16(SRCA_SET_Base_ADDR32, float32 ? 0 : 4);
    TTI_SETADC(p_setadc::UNP_A, p_setadc::CH_1, p_setadc::SET_Y, 0);
}

// A fault of Wormhole (TEN-3868) wants an unpack to SrcA behind the last one to Dest. SrcA takes TF32 at most.
inline void leave_unpack_to_dest() {
    TTI_STALLWAIT(p_stall::STALL_CFG, p_stall::UNPACK0);
    unpack_to<false>();
    cfg_reg_rmw_tensix<THCON_SEC0_REG0_TileDescriptor_ADDR32, 0, 0x0f>(to_underlying(DataFormat::Float32));
    cfg_reg_rmw_tensix<THCON_SEC0_REG2_Out_data_format_RMW>(to_underlying(DataFormat::Tf32));
    TTI_SETADCXX(p_setadc::UNP_A, FACE_C_DIM - 1, 0);
    unpack_piece<SrcA, 0, false>();
}

// Points unpacker 0 at an operand, which may be of another type than the last.
template <bool float32>
inline void select_operand(uint32_t gpr, uint32_t cb) {
    set_base<SrcA>(gpr);
    if constexpr (any_float32 && any_bfloat16) {
        llk_unpack_reconfig_data_format_srca<DST_ACCUM_MODE, p_dim_stride_target::IGNORE>(cb);
        unpack_to<float32>();
    }
}

// Sections are counted, not named, so they must come back in the order in which they were filled. The SFPU gives those
// of a group's first passes back, the packer those of its last: before another group begins, the packer must be done.
inline void wait_for_all_sections() {
    take<free_sections>();
    take<free_sections>();
    give<free_sections, p_stall::NONE>();
    give<free_sections, p_stall::NONE>();
}

inline void wait_for_weights(uint32_t cb_gamma, uint32_t cb_beta, uint32_t pages) {
    if constexpr (uses_gamma) {
        llk_wait_tiles(cb_gamma, pages);
    }
    if constexpr (uses_beta) {
        llk_wait_tiles(cb_beta, pages);
    }
}

// Fills a section with a piece of each of a group's rows, and with gamma's and beta's where they are used.
template <bool weights>
inline void fill_section(
    uint32_t section, uint32_t ring_row, uint32_t rows, uint32_t step, uint32_t cb_input, uint32_t cb_gamma, uint32_t cb_beta) {
    take<free_sections>();
    set_counter(p_setadc::UNP_A, p_setadc::SET_Y, step);
    set_counter(p_setadc::UNP_A, p_setadc::SET_Z, ring_row);
    if constexpr (gamma_on_fpu) {
        multiply_pieces(section, rows, step);
    } else {
        copy_pieces<input_float32>(section, rows);
    }
    if constexpr (weights && uses_gamma && !gamma_on_fpu) {
        select_operand<gamma_float32>(gamma_base, cb_gamma);
        set_counter(p_setadc::UNP_A, p_setadc::SET_Z, 0);
        copy_pieces<gamma_float32>(section + gamma_dest_row, 1);
    }
    if constexpr (weights && uses_beta) {
        select_operand<beta_float32>(beta_base, cb_beta);
        set_counter(p_setadc::UNP_A, p_setadc::SET_Z, 0);
        copy_pieces<beta_float32>(section + beta_dest_row, 1);
    }
    give<filled, any_float32 ? p_stall::MATH | p_stall::UNPACK0 : p_stall::MATH>();
    if constexpr (weights && ((uses_gamma && !gamma_on_fpu) || uses_beta)) {
        select_operand<input_float32>(input_base, cb_input);
    }
}

// CBs as in compute.cpp. ring_rows: rows of the input that the input's CB holds
inline void unpack_thread(
    uint32_t cb_input, uint32_t cb_gamma, uint32_t cb_beta, uint32_t rows, uint32_t steps, uint32_t ring_rows) {
    assert_cb(cb_input, ring_rows * steps, piece_blocks * 128 * (input_float32 ? 4 : 2));
    configure_unpack(steps);
    configure_fpu();
    record_sequences();
    remember_base(input_base, cb_input);
    if constexpr (uses_gamma) {
        remember_base(gamma_base, cb_gamma);
    }
    if constexpr (uses_beta) {
        remember_base(beta_base, cb_beta);
    }
    set_base<SrcB>(input_base);
    unpack_to<input_float32>();
    select_operand<input_float32>(input_base, cb_input);

    Sums sums(cb_input, steps);
    uint32_t count = rows_of_group(0, rows);
    if constexpr (!input_float32) {
        sums.start(0, count, 0);
        sums.finish();
    }

    uint32_t section = 0;
    uint32_t ring_row = 0;
    for (uint32_t first = 0; first < rows; first += group_rows) {
        ASSERT(ring_row < ring_rows);
        const uint32_t next_count = rows_of_group(first + count, rows);
        const uint32_t next_ring_row = ring_row + group_rows == ring_rows ? 0 : ring_row + group_rows;
        if constexpr (input_float32) {
            wait_for_all_sections();
            llk_wait_tiles(cb_input, count * steps);
            for (uint32_t i = 0; i < (passes - 1) * steps; ++i) {
                fill_section<false>(
                    section, ring_row, count, i < steps ? i : i - steps, cb_input, cb_gamma, cb_beta);
                section = other_section(section);
            }
        } else {
            sums.start(next_ring_row, next_count, count * steps);
        }
        for (uint32_t step = 0; step < steps; ++step) {
            if (first == 0) {
                wait_for_weights(cb_gamma, cb_beta, step + 1);
            }
            fill_section<true>(section, ring_row, count, step, cb_input, cb_gamma, cb_beta);
            section = other_section(section);
            if constexpr (!input_float32) {
                if (step == steps - 1) {
                    sums.finish();
                } else {
                    sums.add_arrived(2 * group_rows);  // twice what it takes, so that a late group does not stay late
                }
            }
        }
        llk_pop_tiles(cb_input, count * steps);
        count = next_count;
        ring_row = next_ring_row;
    }
    // The next kernel finds the semaphores as this one did: at zero, and those that the firmware gives a maximum at that.
    // The packer gave its last section back after all that it took, so nothing is handed over any more.
    take<free_sections>();
    take<free_sections>();
    take<free_sums>();
    t6_semaphore_init(normalized, 0, firmware_semaphore_max);
    t6_semaphore_init(free_sections, 0, firmware_semaphore_max);
    if constexpr (any_float32) {
        leave_unpack_to_dest();
    }
}

}  // namespace layernorm
