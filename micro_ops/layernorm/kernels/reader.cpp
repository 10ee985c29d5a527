// Reader (NCRISC): row-major sticks from DRAM into L1.
//
// CB contract, in pages of one tile (32x32 elements):
//   pushes  cb_input  `tiles` a block: the block's sticks                               -> compute
//   pushes  cb_gamma  `tiles` once:    the gamma stick, one copy for each row of a block  -> compute
//   pushes  cb_beta   `tiles` once:    the beta stick, likewise                         -> compute
// A block is the `block_rows` sticks that share one pass of the compute kernel, a stride apart in L1: 32 sticks side by
// side for the tilizer, or one stick that is read as whole tiles just as it lies.
// What lies between a stick's end and the stride, and rows past the last one, is left as it was: compute masks it out of
// the statistics, and the writer does not write it.
#include <cstdint>

#include "api/dataflow/dataflow_api.h"
#include "runtime_args.h"

constexpr uint32_t cb_input = get_named_compile_time_arg_val("cb_input");
constexpr uint32_t cb_gamma = get_named_compile_time_arg_val("cb_gamma");
constexpr uint32_t cb_beta = get_named_compile_time_arg_val("cb_beta");
constexpr bool has_gamma = get_named_compile_time_arg_val("has_gamma");
constexpr bool has_beta = get_named_compile_time_arg_val("has_beta");
constexpr uint32_t block_rows = get_named_compile_time_arg_val("block_rows");

template <typename Accessor>
void read_block(uint32_t cb, uint32_t tiles, const Accessor& sticks, uint32_t first, uint32_t count, uint32_t step,
                uint32_t stride) {
    cb_reserve_back(cb, tiles);
    uint32_t address = get_write_ptr(cb);
    for (uint32_t row = 0; row < count; ++row) {
        noc_async_read_page(first + row * step, sticks, address);
        address += stride;
    }
    noc_async_read_barrier();
    cb_push_back(cb, tiles);
}

void kernel_main() {
    const uint32_t input_address = RUNTIME_ARG(input_address);
    const uint32_t gamma_address = RUNTIME_ARG(gamma_address);
    const uint32_t beta_address = RUNTIME_ARG(beta_address);
    const uint32_t rows = RUNTIME_ARG(rows);
    const uint32_t tiles = RUNTIME_ARG(tiles);
    const uint32_t input_stick = RUNTIME_ARG(input_stick);
    const uint32_t input_stride = RUNTIME_ARG(input_stride);
    const uint32_t gamma_stick = RUNTIME_ARG(gamma_stick);
    const uint32_t gamma_stride = RUNTIME_ARG(gamma_stride);
    const uint32_t beta_stick = RUNTIME_ARG(beta_stick);
    const uint32_t beta_stride = RUNTIME_ARG(beta_stride);

    constexpr auto input_args = TensorAccessorArgs<0>();
    constexpr auto gamma_args = TensorAccessorArgs<input_args.next_compile_time_args_offset()>();
    constexpr auto beta_args = TensorAccessorArgs<gamma_args.next_compile_time_args_offset()>();
    const auto input = TensorAccessor(input_args, input_address, input_stick);
    const auto gamma = TensorAccessor(gamma_args, gamma_address, gamma_stick);
    const auto beta = TensorAccessor(beta_args, beta_address, beta_stick);

    for (uint32_t row = 0; row < rows; row += block_rows) {
        const uint32_t count = rows - row < block_rows ? rows - row : block_rows;
        read_block(cb_input, tiles, input, row, count, 1, input_stride);
        if (row == 0) {  // behind the first block, whose statistics need neither
            if constexpr (has_gamma) {
                read_block(cb_gamma, tiles, gamma, 0, block_rows, 0, gamma_stride);
            }
            if constexpr (has_beta) {
                read_block(cb_beta, tiles, beta, 0, block_rows, 0, beta_stride);
            }
        }
    }
}
