// Reader (NCRISC): row-major sticks from DRAM into L1.
//
// CB contract, in pages of one piece (compute.cpp):
//   pushes  cb_input  `steps` a row: the rows, four a group, each padded with zeros to whole pieces  -> compute
//   pushes  cb_gamma, cb_beta  `steps` once: what lies behind their last element is left as it was   -> compute
//
// Two groups' reads are in flight, each under a transaction id of its own. The first group, gamma and beta are read and
// pushed in parts, so that compute can start on the first part while the others are on their way.
#include <cstdint>

#include "api/dataflow/dataflow_api.h"
#include "runtime_args.h"

constexpr uint32_t cb_input = get_named_compile_time_arg_val("cb_input");
constexpr uint32_t cb_gamma = get_named_compile_time_arg_val("cb_gamma");
constexpr uint32_t cb_beta = get_named_compile_time_arg_val("cb_beta");
constexpr bool has_gamma = get_named_compile_time_arg_val("has_gamma");
constexpr bool has_beta = get_named_compile_time_arg_val("has_beta");
constexpr uint32_t input_piece = get_named_compile_time_arg_val("input_piece");  // bytes
constexpr uint32_t gamma_piece = get_named_compile_time_arg_val("gamma_piece");
constexpr uint32_t beta_piece = get_named_compile_time_arg_val("beta_piece");
constexpr uint32_t ring_groups = get_named_compile_time_arg_val("ring_groups");  // that cb_input holds
constexpr uint32_t groups_in_flight = 2;

constexpr uint32_t group_rows = 4;
constexpr uint32_t parts = 4;
constexpr uint32_t input_trid = 1, weights_trid = input_trid + parts, group_trid = weights_trid + parts;

// Part `part` of a stick: whole pieces, as far as the stick goes.
struct Part {
    uint32_t first, pieces;  // of the row
    Part(uint32_t part, uint32_t steps) : first(part * steps / parts), pieces((part + 1) * steps / parts - first) {}
    void read(uint64_t stick, uint32_t size, uint32_t address, uint32_t piece) const {
        if (pieces != 0) {
            const uint32_t start = first * piece, end = (first + pieces) * piece;
            noc_async_read(stick + start, address + start, (end < size ? end : size) - start);
        }
    }
};

// Zeros from the 32-byte boundary before `size` to the end of each of `count` rows.
void zero_padding(uint32_t address, uint32_t count, uint32_t size, uint32_t row_size) {
    const uint64_t zeros = get_noc_addr(MEM_ZEROS_BASE);
    for (uint32_t row = 0; row < count; ++row) {
        for (uint32_t at = size & ~31; at < row_size; at += MEM_ZEROS_SIZE) {
            const uint32_t left = row_size - at;
            noc_async_read(zeros, address + row * row_size + at, left < MEM_ZEROS_SIZE ? left : MEM_ZEROS_SIZE);
        }
    }
    noc_async_read_barrier();
}

void kernel_main() {
    const uint32_t rows = RUNTIME_ARG(rows);
    const uint32_t steps = RUNTIME_ARG(steps);
    const uint32_t input_stick = RUNTIME_ARG(input_stick);
    const uint32_t gamma_stick = RUNTIME_ARG(gamma_stick);
    const uint32_t beta_stick = RUNTIME_ARG(beta_stick);

    constexpr auto input_args = TensorAccessorArgs<0>();
    constexpr auto gamma_args = TensorAccessorArgs<input_args.next_compile_time_args_offset()>();
    constexpr auto beta_args = TensorAccessorArgs<gamma_args.next_compile_time_args_offset()>();
    const auto input = TensorAccessor(input_args, RUNTIME_ARG(input_address), input_stick);
    const auto gamma = TensorAccessor(gamma_args, RUNTIME_ARG(gamma_address), gamma_stick);
    const auto beta = TensorAccessor(beta_args, RUNTIME_ARG(beta_address), beta_stick);

    const uint32_t row_size = steps * input_piece;
    const uint32_t input_l1 = get_write_ptr(cb_input);
    const uint32_t gamma_l1 = get_write_ptr(cb_gamma);
    const uint32_t beta_l1 = get_write_ptr(cb_beta);
    const uint32_t groups = (rows + group_rows - 1) / group_rows;
    const uint32_t first_rows = rows < group_rows ? rows : group_rows;

    if (input_stick != row_size) {
        zero_padding(input_l1, rows < ring_groups * group_rows ? rows : ring_groups * group_rows, input_stick, row_size);
    }

    for (uint32_t part = 0; part < parts; ++part) {
        noc_async_read_set_trid(input_trid + part);
        if (first_rows == 1) {
            Part(part, steps).read(input.get_noc_addr(0), input_stick, input_l1, input_piece);
        } else if (part < first_rows) {
            noc_async_read(input.get_noc_addr(part), input_l1 + part * row_size, input_stick);
        }
    }
    const uint64_t gamma_noc = has_gamma ? gamma.get_noc_addr(0) : 0;
    const uint64_t beta_noc = has_beta ? beta.get_noc_addr(0) : 0;
    for (uint32_t part = 0; part < parts; ++part) {
        noc_async_read_set_trid(weights_trid + part);
        if constexpr (has_gamma) {
            Part(part, steps).read(gamma_noc, gamma_stick, gamma_l1, gamma_piece);
        }
        if constexpr (has_beta) {
            Part(part, steps).read(beta_noc, beta_stick, beta_l1, beta_piece);
        }
    }
    for (uint32_t part = 0; part < parts; ++part) {
        const uint32_t pages = first_rows == 1 ? Part(part, steps).pieces : part < first_rows ? steps : 0;
        noc_async_read_barrier_with_trid(input_trid + part);
        cb_push_back(cb_input, pages);
    }

    uint32_t issued = first_rows, pushed = first_rows;  // rows
    uint32_t issued_l1 = input_l1 + group_rows * row_size;
    const uint32_t end_l1 = input_l1 + ring_groups * group_rows * row_size;
    uint32_t issue_trid = 0, push_trid = 0;

    const auto issue_group = [&] {
        if (issued >= rows) {
            return;
        }
        const uint32_t end = issued + group_rows < rows ? issued + group_rows : rows;
        cb_reserve_back(cb_input, (end - pushed) * steps);
        noc_async_read_set_trid(group_trid + issue_trid);
        issue_trid = issue_trid + 1 == groups_in_flight ? 0 : issue_trid + 1;
        uint32_t address = issued_l1;
        for (; issued < end; ++issued) {
            noc_async_read(input.get_noc_addr(issued), address, input_stick);
            address += row_size;
        }
        issued_l1 = address == end_l1 ? input_l1 : address;
    };

    issue_group();
    for (uint32_t part = 0; part < parts; ++part) {
        const uint32_t pieces = Part(part, steps).pieces;
        noc_async_read_barrier_with_trid(weights_trid + part);
        if constexpr (has_gamma) {
            cb_push_back(cb_gamma, pieces);
        }
        if constexpr (has_beta) {
            cb_push_back(cb_beta, pieces);
        }
    }
    while (pushed < rows) {
        issue_group();
        noc_async_read_barrier_with_trid(group_trid + push_trid);
        push_trid = push_trid + 1 == groups_in_flight ? 0 : push_trid + 1;
        const uint32_t end = pushed + group_rows < rows ? pushed + group_rows : rows;
        cb_push_back(cb_input, (end - pushed) * steps);
        pushed = end;
    }
    noc_async_read_set_trid(0);
}
