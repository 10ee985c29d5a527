// Compute (TRISC0-2): LayerNorm, or RMSNorm where `subtract_mean` is off, of one block of sticks after another.
//
// CB contract, in pages of one tile:
//   pops    cb_input_rm     `tiles` a block, tilized only: sticks as they came        <- reader
//   owns    cb_input_tiled  `tiles` a block: the block as tiles; flat: pushed by the reader as it came
//   pops    cb_gamma_rm, cb_beta_rm  `tiles` once, tilized only                       <- reader
//   keeps   cb_gamma_tiled, cb_beta_tiled  `tiles`, waited for once and never popped; flat: pushed by the reader
//   owns    cb_interm       1 a block, tilized 2: the statistics tiles (layernorm_sfpu.h)
//   pushes  cb_output       `tiles` a block: flat: tiles as they are; tilized: sticks  -> writer
//
// x is read from L1 three times (sum, squares, result); everything between is float32 in Dest and on the SFPU, so
// that no value passes SrcA or SrcB, which hold TF32 at most, after it has been rounded.
#include <cstdint>

#include "api/compute/common.h"
#include "api/compute/compute_kernel_hw_startup.h"
#include "api/compute/eltwise_unary/rsqrt.h"
#include "api/compute/pack_untilize.h"
#include "api/compute/tile_move_copy.h"
#include "api/compute/tilize.h"
#include "runtime_args.h"

namespace layernorm {
// What the kernel gives out in place of the result, for tests: the same code as far as there. The host defines TAP.
enum class Tap { none, input, mean, variance, inverse_std, standardized, scaled };
constexpr Tap tap = Tap::TAP;

enum class Summand { x, squared_deviation, squared_x };  // of a row's sum
}  // namespace layernorm

#ifdef TRISC_MATH
#include "layernorm_sfpu.h"
#endif

using namespace ckernel;
using layernorm::Summand;

constexpr uint32_t cb_input_rm = get_named_compile_time_arg_val("cb_input_rm");
constexpr uint32_t cb_input_tiled = get_named_compile_time_arg_val("cb_input_tiled");
constexpr uint32_t cb_gamma_rm = get_named_compile_time_arg_val("cb_gamma_rm");
constexpr uint32_t cb_gamma_tiled = get_named_compile_time_arg_val("cb_gamma_tiled");
constexpr uint32_t cb_beta_rm = get_named_compile_time_arg_val("cb_beta_rm");
constexpr uint32_t cb_beta_tiled = get_named_compile_time_arg_val("cb_beta_tiled");
constexpr uint32_t cb_interm = get_named_compile_time_arg_val("cb_interm");
constexpr uint32_t cb_output = get_named_compile_time_arg_val("cb_output");
constexpr bool has_gamma = get_named_compile_time_arg_val("has_gamma");
constexpr bool has_beta = get_named_compile_time_arg_val("has_beta");
constexpr bool subtract_mean = get_named_compile_time_arg_val("subtract_mean");
constexpr bool round_before_gamma = get_named_compile_time_arg_val("round_before_gamma");
constexpr bool one_format = get_named_compile_time_arg_val("one_format");  // x, gamma and beta have one type
constexpr bool tilized = get_named_compile_time_arg_val("tilized");
constexpr uint32_t tilized_tiles = get_named_compile_time_arg_val("tilized_tiles");  // `tiles`, or 1 if flat
constexpr uint32_t tile_columns = tilized ? 32 : 1024;                                // a tile holds of one row
constexpr uint32_t statistics_tiles = tilized ? 2 : 1;

// Dest holds four float32 tiles. While statistics are made, the last two are theirs.
enum Slot : uint32_t { x_slot, gamma_slot, beta_slot, loaded_statistics_slot, statistics_slot = 2 };

// Runs a function of layernorm_sfpu.h on the math core, with Dest's first tile as its base.
#define SFPU(...) MATH((_llk_math_eltwise_unary_sfpu_params_([&] { layernorm::__VA_ARGS__; }, 0, VectorMode::None)))

ALWI void copy_to_dest(uint32_t cb, uint32_t tile, uint32_t slot) {
    if constexpr (!one_format) {
        reconfig_data_format_srca(cb);
        copy_init(cb);
    }
    copy_tile(cb, tile, slot);
}

ALWI void tilize(uint32_t cb_sticks, uint32_t cb_tiles, uint32_t tiles) {
    tilize_init(cb_sticks, tiles, cb_tiles);
    cb_wait_front(cb_sticks, tiles);
    cb_reserve_back(cb_tiles, tiles);
    tilize_block(cb_sticks, tiles, cb_tiles);
    cb_push_back(cb_tiles, tiles);
    cb_pop_front(cb_sticks, tiles);
    tilize_uninit(cb_sticks, cb_tiles);
}

// Adds every tile of the block to the sums in Dest, the last one without its padding.
template <layernorm::Summand summand>
ALWI void add_tiles_to_sums(uint32_t tiles, uint32_t width) {
    const int valid = width - (tiles - 1) * tile_columns;  // columns of the last tile
    SFPU(clear_sums<tilized>());
    for (uint32_t t = 0; t < tiles; ++t) {
        copy_to_dest(cb_input_tiled, t, x_slot);
        const bool odd = tilized && t % 2;
        const bool masked = t == tiles - 1 && valid != int(tile_columns);
        if (masked && odd) {
            SFPU(add_tile<tilized, true, true, summand>(valid));
        } else if (masked) {
            SFPU(add_tile<tilized, false, true, summand>(valid));
        } else if (odd) {
            SFPU(add_tile<tilized, true, false, summand>(valid));
        } else {
            SFPU(add_tile<tilized, false, false, summand>(valid));
        }
    }
}

// Mean and 1 / std of the block's rows, into cb_interm. Dest is held throughout: the sums live there.
ALWI void compute_statistics(uint32_t tiles, uint32_t width, uint32_t width_bits, uint32_t inverse_width_bits,
                             uint32_t epsilon_bits) {
    copy_init(cb_input_tiled);
    tile_regs_acquire();
    if constexpr (subtract_mean) {
        add_tiles_to_sums<Summand::x>(tiles, width);
        SFPU(finish_mean<tilized>(width_bits, inverse_width_bits));
        add_tiles_to_sums<Summand::squared_deviation>(tiles, width);
    } else {
        SFPU(clear_mean<tilized>());
        add_tiles_to_sums<Summand::squared_x>(tiles, width);
    }
    SFPU(finish_variance<tilized>(inverse_width_bits, epsilon_bits));
    if constexpr (layernorm::tap != layernorm::Tap::variance) {
        rsqrt_tile_init();
        for (uint32_t i = 0; i < statistics_tiles; ++i) {
            MATH((SFPU_UNARY_CALL(DST_SYNC_MODE, DST_ACCUM_MODE, calculate_rsqrt,
                                  (APPROX, tilized ? 4 : 1, DST_ACCUM_MODE, false), statistics_slot + i,
                                  VectorMode::None)));
        }
    }
    SFPU(split_statistics<tilized>());
    tile_regs_commit();

    cb_reserve_back(cb_interm, statistics_tiles);
    tile_regs_wait();
    for (uint32_t i = 0; i < statistics_tiles; ++i) {
        pack_tile(statistics_slot + i, cb_interm);
    }
    tile_regs_release();
    cb_push_back(cb_interm, statistics_tiles);
}

ALWI void normalize(uint32_t tiles) {
    cb_wait_front(cb_interm, statistics_tiles);
    cb_reserve_back(cb_output, tiles);
    copy_init(cb_input_tiled);
    if constexpr (tilized) {
        pack_untilize_dest_init<1, tilized_tiles>(cb_output);
    }
    for (uint32_t t = 0; t < tiles; ++t) {
        tile_regs_acquire();
        copy_to_dest(cb_input_tiled, t, x_slot);
        if constexpr (has_gamma) {
            copy_to_dest(cb_gamma_tiled, t, gamma_slot);
        }
        if constexpr (has_beta) {
            copy_to_dest(cb_beta_tiled, t, beta_slot);
        }
        copy_to_dest(cb_interm, 0, loaded_statistics_slot);
        SFPU(normalize_groups<tilized, subtract_mean, has_gamma, round_before_gamma, has_beta, 0>());
        if constexpr (tilized) {
            copy_to_dest(cb_interm, 1, loaded_statistics_slot);
            SFPU(normalize_groups<tilized, subtract_mean, has_gamma, round_before_gamma, has_beta, 1>());
        }
        tile_regs_commit();
        tile_regs_wait();
        if constexpr (tilized) {
            pack_untilize_dest<1, tilized_tiles>(cb_output, 1, t);
        } else {
            pack_tile(x_slot, cb_output);
        }
        tile_regs_release();
    }
    if constexpr (tilized) {
        pack_untilize_uninit(cb_output);
    }
    cb_push_back(cb_output, tiles);
    cb_pop_front(cb_interm, statistics_tiles);
}

void kernel_main() {
    const uint32_t blocks = RUNTIME_ARG(blocks);
    const uint32_t tiles = RUNTIME_ARG(tiles);
    const uint32_t width = RUNTIME_ARG(width);
    const uint32_t width_bits = RUNTIME_ARG(width_bits);
    const uint32_t inverse_width_bits = RUNTIME_ARG(inverse_width_bits);
    const uint32_t epsilon_bits = RUNTIME_ARG(epsilon_bits);

    compute_kernel_hw_startup(tilized ? cb_input_rm : cb_input_tiled, cb_output);
    for (uint32_t block = 0; block < blocks; ++block) {
        if constexpr (tilized) {
            tilize(cb_input_rm, cb_input_tiled, tiles);
        }
        cb_wait_front(cb_input_tiled, tiles);
        compute_statistics(tiles, width, width_bits, inverse_width_bits, epsilon_bits);
        if (block == 0) {  // behind the first statistics, which need neither
            if constexpr (has_gamma) {
                if constexpr (tilized) {
                    tilize(cb_gamma_rm, cb_gamma_tiled, tiles);
                }
                cb_wait_front(cb_gamma_tiled, tiles);
            }
            if constexpr (has_beta) {
                if constexpr (tilized) {
                    tilize(cb_beta_rm, cb_beta_tiled, tiles);
                }
                cb_wait_front(cb_beta_tiled, tiles);
            }
        }
        normalize(tiles);
        cb_pop_front(cb_input_tiled, tiles);
    }
}
