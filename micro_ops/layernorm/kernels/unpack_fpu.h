// The unpack thread: brings x, gamma and beta into Dest, and adds up the next group's x and x^2 meanwhile.
//
// It issues the FPU's instructions, too. The math thread then issues those of the SFPU alone, which is what the op's
// time goes to; and unpacker and FPU need no word from each other, since one thread's instructions keep their order.
//
// bfloat16 passes SrcA and SrcB unchanged, and the FPU adds to float32 in Dest. x^2 takes the four fidelity phases,
// each an exact product of parts of x, so that the sums are rounded as float32 sums are and no more.
#pragma once

#include "dest.h"
#include "llk_unpack_common_api.h"

namespace layernorm {

// What UNPACR adds to its operand's address counters: a row of the ring, or a piece.
constexpr uint32_t next_row = 0b0001, next_piece = 0b0100;

// FPU address modes
constexpr uint32_t stay = ADDR_MOD_0, next_block = ADDR_MOD_1, next_phase = ADDR_MOD_2, next_sources = ADDR_MOD_3;

// General purpose registers that hold what the unpacker's base register takes for an operand
constexpr uint32_t input_base = p_gpr_unpack::TMP0, gamma_base = p_gpr_unpack::TMP1, beta_base = p_gpr_unpack::TILE_SIZE;

inline void remember_base(uint32_t gpr, uint32_t cb) {
    regfile[gpr] = get_local_cb_interface(cb).fifo_rd_ptr - 1;
    sync_regfile_write(gpr);
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
    addr_mod_t{}.set(stay);
    addr_mod_t{.srca = {.incr = block_dest_rows}, .dest = {.incr = block_dest_rows}}.set(next_block);
    addr_mod_t{.fidelity = {.incr = 1}}.set(next_phase);
    addr_mod_t{.srca = {.incr = block_dest_rows}, .srcb = {.incr = block_dest_rows}, .fidelity = {.clr = 1}}.set(
        next_sources);
    TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_ABD_F);
}

template <uint32_t unpacker, uint32_t step>
inline void unpack_piece() {
    TTI_UNPACR(unpacker, step, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1);
}

// Gives the FPU a SrcB of zeros.
inline void unpack_zeros() {
#ifdef ARCH_BLACKHOLE
    TTI_UNPACR_NOP(
        SrcB, 0, 0, p_unpacr_nop::SET_DVALID, 0, p_unpacr_nop::WAIT_LIKE_UNPACR, 0, 0, p_unpacr_nop::UNP_ZEROSRC);
#else
    TTI_UNPACR_NOP(SrcB, p_unpacr_nop::UNP_ZEROSRC);
    TTI_UNPACR_NOP(SrcB, p_unpacr_nop::UNP_SET_DVALID);
#endif
}

inline void set_counter(uint32_t unpackers, uint32_t dimension, uint32_t value) {
    TT_SETADC(unpackers, p_setadc::CH_0, dimension, value);
}

// Copies one piece of each of `rows` rows to Dest, from row `dest_row` on. The FPU adds zero, since its moves from SrcA
// do not write float32.
inline void copy_pieces(uint32_t dest_row, uint32_t rows) {
    set_dest_base(dest_row);
    TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
    for (uint32_t r = 0; r < rows; ++r) {
        unpack_piece<SrcA, next_row>();
        unpack_zeros();
#pragma GCC unroll 4
        for (uint32_t b = 0; b < piece_blocks; ++b) {
            TTI_ELWADD(p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, next_block, 0);
        }
        TTI_SETRWC(p_setrwc::CLR_AB, 0, 0, 0, 0, p_setrwc::SET_AB);
    }
}

// Adds the next piece of a row to its sums. The first block of a row overwrites the sums: x - x is zero.
template <bool subtract_mean, bool first>
inline void add_piece() {
    unpack_piece<SrcA, next_piece>();
    unpack_piece<SrcB, next_piece>();
#pragma GCC unroll 4
    for (uint32_t b = 0; b < piece_blocks; ++b) {
        const uint32_t accumulate = first && b == 0 ? p_elwise::DEST_ACCUM_DIS : p_elwise::DEST_ACCUM_EN;
        if constexpr (subtract_mean) {
            TTI_ELWADD(p_elwise::CLR_NONE, accumulate, p_elwise::SRCB_NO_BCAST, stay, 0);
        }
        if (!accumulate) {
            TTI_ELWSUB(
                p_elwise::CLR_NONE, p_elwise::DEST_ACCUM_DIS, p_elwise::SRCB_NO_BCAST, stay, block_dest_rows);
        }
#pragma GCC unroll 4
        for (uint32_t phase = 0; phase < 4; ++phase) {
            const uint32_t step = phase < 3 ? next_phase : next_sources;
            TTI_ELWMUL(p_elwise::CLR_NONE, 0, p_elwise::SRCB_NO_BCAST, step, block_dest_rows);
        }
    }
    TTI_SETRWC(p_setrwc::CLR_AB, 0, 0, 0, 0, p_setrwc::SET_AB);
}

// Adds up a group, a few pieces at a time.
class Sums {
public:
    Sums(uint32_t cb, uint32_t steps) : cb(cb), steps(steps) {}

    // rows: of the group; pages: those in front of it that the CB still holds
    void start(uint32_t first_ring_row, uint32_t rows, uint32_t pages) {
        ring_row = first_ring_row;
        rows_left = rows;
        pages_in_front = pages;
        row = piece = 0;
    }

    template <bool subtract_mean>
    void add_pieces(uint32_t count) {
        if (rows_left == 0) {
            return;
        }
        set_counter(p_setadc::UNP_AB, p_setadc::SET_Z, ring_row);
        set_counter(p_setadc::UNP_AB, p_setadc::SET_Y, row * steps + piece);
        set_dest_base(sums_dest_row + row * row_sums_dest_rows);
        TTI_SETRWC(p_setrwc::CLR_NONE, 0, 0, 0, 0, p_setrwc::SET_D);
        for (; count > 0; --count) {
            llk_wait_tiles(cb, ++pages_in_front);
            if (row == 0 && piece == 0) {
                take<free_sums>();
            }
            if (piece == 0) {
                add_piece<subtract_mean, true>();
            } else {
                add_piece<subtract_mean, false>();
            }
            if (++piece == steps) {
                piece = 0;
                set_dest_base(sums_dest_row + ++row * row_sums_dest_rows);
                if (--rows_left == 0) {
                    give<filled, p_stall::MATH>();
                    return;
                }
            }
        }
    }

private:
    uint32_t cb, steps;
    uint32_t ring_row = 0, rows_left = 0, pages_in_front = 0, row = 0, piece = 0;
};

inline void select_base(uint32_t gpr) {
    TTI_STALLWAIT(p_stall::STALL_CFG, p_stall::UNPACK0);
    TT_WRCFG(gpr, p_cfg::WRCFG_32b, THCON_SEC0_REG3_Base_address_ADDR32);
    TTI_NOP;
}

// CBs as in compute.cpp. ring_rows: rows of the input that the input's CB holds
template <bool subtract_mean, bool has_gamma, bool has_beta>
inline void unpack_thread(
    uint32_t cb_input, uint32_t cb_gamma, uint32_t cb_beta, uint32_t rows, uint32_t steps, uint32_t ring_rows) {
    configure_unpack(steps);
    configure_fpu();
    remember_base(input_base, cb_input);
    if constexpr (has_gamma) {
        remember_base(gamma_base, cb_gamma);
    }
    if constexpr (has_beta) {
        remember_base(beta_base, cb_beta);
    }
    TT_WRCFG(input_base, p_cfg::WRCFG_32b, THCON_SEC1_REG3_Base_address_ADDR32);
    select_base(input_base);

    Sums sums(cb_input, steps);
    uint32_t count = rows_of_group(0, rows);
    sums.start(0, count, 0);
    sums.template add_pieces<subtract_mean>(count * steps);

    uint32_t section = 0;
    uint32_t ring_row = 0;
    for (uint32_t first = 0; first < rows; first += group_rows) {
        const uint32_t next_count = rows_of_group(first + count, rows);
        const uint32_t next_ring_row = ring_row + group_rows == ring_rows ? 0 : ring_row + group_rows;
        sums.start(next_ring_row, next_count, count * steps);
        for (uint32_t step = 0; step < steps; ++step) {
            if (first == 0) {
                if constexpr (has_gamma) {
                    llk_wait_tiles(cb_gamma, step + 1);
                }
                if constexpr (has_beta) {
                    llk_wait_tiles(cb_beta, step + 1);
                }
            }
            take<free_sections>();
            set_counter(p_setadc::UNP_A, p_setadc::SET_Y, step);
            set_counter(p_setadc::UNP_A, p_setadc::SET_Z, ring_row);
            copy_pieces(section, count);
            if constexpr (has_gamma) {
                select_base(gamma_base);
                set_counter(p_setadc::UNP_A, p_setadc::SET_Z, 0);
                copy_pieces(section + gamma_dest_row, 1);
            }
            if constexpr (has_beta) {
                select_base(beta_base);
                set_counter(p_setadc::UNP_A, p_setadc::SET_Z, 0);
                copy_pieces(section + beta_dest_row, 1);
            }
            give<filled, p_stall::MATH>();
            select_base(input_base);
            section = section == 0 ? section_dest_rows : 0;
            sums.template add_pieces<subtract_mean>(next_count);
        }
        llk_pop_tiles(cb_input, count * steps);
        count = next_count;
        ring_row = next_ring_row;
    }
    // The next kernel finds the semaphores as this one did: at zero.
    take<free_sections>();
    take<free_sections>();
    take<free_sums>();
}

}  // namespace layernorm
