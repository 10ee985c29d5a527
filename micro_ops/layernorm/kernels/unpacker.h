// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// The two unpackers: where they read from, where they write to. Unpacker 0 brings operands to SrcA or to Dest, unpacker 1
// to SrcB.
#pragma once

#include "dest.h"
#include "llk_unpack_common_api.h"

namespace layernorm {

// What UNPACR adds to its operand's address counters: to Z (a row of the group) or to Y (a piece).
constexpr uint32_t stay = 0b0000, next_row = 0b0001, next_piece = 0b0100;

// General purpose registers that hold the unpackers' base address of each operand; no LLK function called here writes
// them
constexpr uint32_t input_base = p_gpr_unpack::TMP0, gamma_base = p_gpr_unpack::TMP1, beta_base = p_gpr_unpack::TILE_SIZE;
constexpr uint32_t rows_base = p_gpr_unpack::TILE_OFFSET, statistics_base = p_gpr_unpack::L1_BUFFER_ADDR;
constexpr uint32_t x_base = p_gpr_unpack::PERF_UNPACK_NUM_TILES_0, residual_base = p_gpr_unpack::PERF_UNPACK_NUM_TILES_1;
constexpr uint32_t sums_base = p_gpr_unpack::PERF_UNPACK_NUM_TILES_2;

// Addresses count 16 bytes. The unpackers skip a tile header of one such unit; a CB's pages have none, so the base is one
// unit in front of the data; and as many pieces more as a row has in front of the CB's first, so that counter Y counts a
// row's pieces.
inline void remember_base(uint32_t gpr, uint32_t cb, uint32_t first_piece) {
    const auto& interface = get_local_cb_interface(cb);
    ASSERT(interface.fifo_rd_ptr > first_piece * interface.fifo_page_size);
    regfile[gpr] = interface.fifo_rd_ptr - 1 - first_piece * interface.fifo_page_size;
    sync_regfile_write(gpr);
}

// Points an unpacker at an operand, once it is done with the last one.
template <uint32_t unpacker>
inline void set_base(uint32_t gpr) {
    constexpr bool is_a = unpacker == SrcA;
    TTI_STALLWAIT(p_stall::STALL_CFG, is_a ? p_stall::UNPACK0 : p_stall::UNPACK1);
    TT_WRCFG(
        gpr, p_cfg::WRCFG_32b, is_a ? THCON_SEC0_REG3_Base_address_ADDR32 : THCON_SEC1_REG3_Base_address_ADDR32);
    TTI_NOP;
}

// Sets both unpackers up so that counter Y counts pieces and counter Z rows of `steps` pieces. Y has 13 bits, which is as many
// pieces as a CB may hold (plan.py). Z has 8, fewer than a shard may have rows: it counts those of a group alone.
inline void configure_unpack(uint32_t steps) {
    volatile uint32_t tt_reg_ptr* cfg = get_cfg_pointer();
    constexpr uint32_t low_half = 0xffff;
    const uint32_t dimensions = steps | 1 << 16;  // Y and Z; Z's enters no address
    cfg[THCON_SEC0_REG5_Tile_x_dim_cntx0_ADDR32] = piece_elements | piece_elements << 16;
    cfg[THCON_SEC1_REG0_TileDescriptor_ADDR32] =
        (cfg[THCON_SEC1_REG0_TileDescriptor_ADDR32] & low_half) | piece_elements << 16;
    cfg[THCON_SEC0_REG0_TileDescriptor_ADDR32 + 1] = dimensions;
    cfg[THCON_SEC1_REG0_TileDescriptor_ADDR32 + 1] = dimensions;
    TTI_SETADCXX(p_setadc::UNP_AB, piece_elements - 1, 0);
}

inline void set_counter(uint32_t unpackers, uint32_t dimension, uint32_t value) {
    TT_SETADC(unpackers, p_setadc::CH_0, dimension, value);
}

// valid: hands the source to the FPU, which has it until `done_with_sources` (fpu.h)
template <uint32_t unpacker, uint32_t step, bool valid = true>
inline void unpack_piece() {
    TTI_UNPACR(unpacker, step, 0, 0, 0, 1, valid, 0, 0, 0, 0, 0, 1);
}

// Hands the FPU a source of zeros.
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

// Sends what unpacker 0 unpacks to Dest or to SrcA.
template <bool float32>
inline void unpack_to() {
    cfg_reg_rmw_tensix<THCON_SEC0_REG2_Unpack_if_sel_cntx0_RMW>(float32);
    TTI_SETC16(SRCA_SET_Base_ADDR32, float32 ? 0 : 4);  // as the LLK sets it for Dest and for SrcA
    TTI_SETADC(p_setadc::UNP_A, p_setadc::CH_1, p_setadc::SET_Y, 0);
}

// Wormhole bug TEN-3868: the last unpack to Dest must be followed by one to SrcA. It is not handed to the FPU. SrcA
// takes TF32 at most.
inline void leave_unpack_to_dest() {
    TTI_STALLWAIT(p_stall::STALL_CFG, p_stall::UNPACK0);
    unpack_to<false>();
    cfg_reg_rmw_tensix<THCON_SEC0_REG0_TileDescriptor_ADDR32, 0, 0x0f>(to_underlying(DataFormat::Float32));
    cfg_reg_rmw_tensix<THCON_SEC0_REG2_Out_data_format_RMW>(to_underlying(DataFormat::Tf32));
    TTI_SETADCXX(p_setadc::UNP_A, FACE_C_DIM - 1, 0);
    set_counter(p_setadc::UNP_A, p_setadc::SET_Y, 0);  // as float32, the last element of a CB may lie behind L1
    set_counter(p_setadc::UNP_A, p_setadc::SET_Z, 0);
    unpack_piece<SrcA, stay, false>();
}

// Points unpacker 0 at an operand, which may be of another type than the last.
template <bool float32>
inline void select_operand(uint32_t gpr, uint32_t cb) {
    set_base<SrcA>(gpr);
    if constexpr (unpacks_float32 && any_bfloat16) {
        llk_unpack_reconfig_data_format_srca<DST_ACCUM_MODE, p_dim_stride_target::IGNORE>(cb);
        unpack_to<float32>();
    }
}

// The semaphore says how many sections are free, not which, so they must be freed in the order in which they were filled.
// The SFPU frees those of a group's first passes, the packer those of its last: a group's first pass may begin only when
// the packer has freed both.
inline void wait_for_all_sections() {
    take<free_sections>();
    take<free_sections>();
    give<free_sections, p_stall::NONE>();
    give<free_sections, p_stall::NONE>();
}

// The next kernel must find the semaphores as this one did: at zero, and MATH_PACK and PACK_DONE with the firmware's maximum.
// When the packer has freed the last section, all else that was given has been taken; or, where it frees none, when the math
// thread says so (`emits_statistics`).
inline void leave() {
    take<free_sections>();
    take<free_sections>();
    for (uint32_t set = 0; set < sum_sets + emits_statistics; ++set) {
        take<free_sums>();
    }
    t6_semaphore_init(normalized, 0, firmware_semaphore_max);
    t6_semaphore_init(free_sections, 0, firmware_semaphore_max);
    if constexpr (unpacks_float32) {
        leave_unpack_to_dest();
    }
}

}  // namespace layernorm
