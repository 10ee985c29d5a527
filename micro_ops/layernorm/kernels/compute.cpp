// Compute (TRISC0-2): LayerNorm, or RMSNorm where `subtract_mean` is off, of one group of rows (dest.h) after another.
//
// A page of the input's, gamma's and beta's CBs is a piece of a row (dest.h), one of cb_output is a tile's 1,024 elements.
//
// CB contract:
//   pops    cb_input           the pieces of a group's rows, row by row; padded with zeros to whole pieces  <- reader
//   keeps   cb_gamma, cb_beta  a row's pieces each, waited for one by one and never popped                  <- reader
//   pushes  cb_output          for each step of a group, a piece of each of its rows, one behind the other  -> writer
//
// Unpack thread: unpacker and FPU, x into Dest, sums of x and of x^2 (unpack_fpu.h)
// Math thread:   SFPU, statistics and result (layernorm_sfpu.h)
// Pack thread:   below
#include <cstdint>

#include "api/compute/common.h"
#include "api/compute/compute_kernel_hw_startup.h"
#include "agreement.h"

namespace layernorm {
// What the kernel gives out in place of the result, for tests: the same code as far as there. The host defines TAP.
enum class Tap { none, input, mean, variance, inverse_std, standardized, scaled };
constexpr Tap tap = Tap::TAP;
constexpr bool has_gamma = get_named_compile_time_arg_val("has_gamma");
constexpr bool has_beta = get_named_compile_time_arg_val("has_beta");
constexpr bool uses_gamma = has_gamma && (tap == Tap::none || tap == Tap::scaled);
constexpr bool uses_beta = has_beta && tap == Tap::none;
constexpr bool subtract_mean = get_named_compile_time_arg_val("subtract_mean");
static_assert(subtract_mean || !has_beta, "an RMSNorm has no beta: SFPI would contract its addition with 1 / std");
constexpr bool round_before_gamma = get_named_compile_time_arg_val("round_before_gamma");
constexpr bool input_float32 = get_named_compile_time_arg_val("input_float32");
constexpr bool gamma_float32 = get_named_compile_time_arg_val("gamma_float32");
constexpr bool beta_float32 = get_named_compile_time_arg_val("beta_float32");
constexpr bool any_float32 = input_float32 || (uses_gamma && gamma_float32) || (uses_beta && beta_float32);
constexpr bool any_bfloat16 = !input_float32 || (uses_gamma && !gamma_float32) || (uses_beta && !beta_float32);
// x * gamma is exact on the FPU, and then the SFPU has but 1 / std left to multiply by.
constexpr bool gamma_on_fpu = uses_gamma && !subtract_mean && !round_before_gamma && !any_float32;
}  // namespace layernorm

#include "dest.h"
#ifdef TRISC_UNPACK
#include "unpack_fpu.h"
#endif
#ifdef TRISC_MATH
#include "ckernel_sfpu.h"
#include "layernorm_sfpu.h"
#endif

constexpr uint32_t cb_input = get_named_compile_time_arg_val("cb_input");
constexpr uint32_t cb_gamma = get_named_compile_time_arg_val("cb_gamma");
constexpr uint32_t cb_beta = get_named_compile_time_arg_val("cb_beta");
constexpr uint32_t cb_output = get_named_compile_time_arg_val("cb_output");

#ifdef TRISC_PACK
namespace layernorm {

inline void pack_thread(uint32_t rows, uint32_t steps) {
    uint32_t tile = 0;
    const bool skips_a_section = (passes - 1) * steps % 2 != 0;
    for (uint32_t first = 0; first < rows; first += group_rows) {
        const uint32_t tiles = (rows_of_group(first, rows) * piece_dest_rows + dest_tile_rows - 1) / dest_tile_rows;
        if (skips_a_section) {
            tile = tile == 0 ? section_tiles : 0;
        }
        for (uint32_t step = 0; step < steps; ++step) {
            ASSERT(tile + tiles <= sections * section_tiles);
            cb_reserve_back(cb_output, tiles);
            take<normalized>();
            for (uint32_t i = 0; i < tiles; ++i) {
                pack_tile(tile + i, cb_output);
            }
            give<free_sections, p_stall::PACK>();
            cb_push_back(cb_output, tiles);
            tile = tile == 0 ? section_tiles : 0;
        }
    }
}

}  // namespace layernorm
#endif

void kernel_main() {
    const uint32_t rows = RUNTIME_ARG(rows);
    const uint32_t steps = RUNTIME_ARG(steps);

    // What the FPU takes: bfloat16, where there is any.
    constexpr uint32_t cb_fpu = layernorm::input_float32 && layernorm::uses_gamma && !layernorm::gamma_float32 ? cb_gamma
                                : layernorm::input_float32 && layernorm::uses_beta && !layernorm::beta_float32 ? cb_beta
                                                                                                             : cb_input;
    UNPACK((llk_unpack_hw_configure<DST_ACCUM_MODE>(cb_input)));
    MATH((llk_math_hw_configure<DST_ACCUM_MODE>(cb_fpu, cb_fpu)));
    PACK((llk_pack_hw_configure<DST_ACCUM_MODE>(cb_output)));
    PACK((llk_pack_init<PackMode::Default>(cb_output)));
    PACK((llk_pack_dest_init<DST_ACCUM_MODE, PackMode::Default>(cb_output)));
    UNPACK((layernorm::unpack_thread(cb_input, cb_gamma, cb_beta, rows, steps, RUNTIME_ARG(ring_rows))));
    MATH((layernorm::math_thread(rows, steps, RUNTIME_ARG(inverse_width_bits), RUNTIME_ARG(width_bits),
                                 RUNTIME_ARG(epsilon_bits), RUNTIME_ARG(count_bits), RUNTIME_ARG(count_remainder),
                                 RUNTIME_ARG(valid))));
    PACK((layernorm::pack_thread(rows, steps)));
}
