// Writer (BRISC): row-major sticks from L1 to DRAM.
//
// CB contract, in pages of one tile:
//   pops  cb_output  `tiles` a block: its finished sticks, `stride` bytes apart  <- compute
#include <cstdint>

#include "api/dataflow/dataflow_api.h"
#include "runtime_args.h"

constexpr uint32_t cb_output = get_named_compile_time_arg_val("cb_output");
constexpr uint32_t block_rows = get_named_compile_time_arg_val("block_rows");

void kernel_main() {
    const uint32_t output_address = RUNTIME_ARG(output_address);
    const uint32_t rows = RUNTIME_ARG(rows);
    const uint32_t tiles = RUNTIME_ARG(tiles);
    const uint32_t stick_size = RUNTIME_ARG(stick_size);
    const uint32_t stride = RUNTIME_ARG(stride);

    constexpr auto output_args = TensorAccessorArgs<0>();
    const auto output = TensorAccessor(output_args, output_address, stick_size);

    for (uint32_t row = 0; row < rows; row += block_rows) {
        const uint32_t end = rows - row < block_rows ? rows : row + block_rows;
        cb_wait_front(cb_output, tiles);
        uint32_t address = get_read_ptr(cb_output);
        for (uint32_t stick_id = row; stick_id < end; ++stick_id) {
            noc_async_write_page(stick_id, output, address);
            address += stride;
        }
        noc_async_write_barrier();
        cb_pop_front(cb_output, tiles);
    }
}
