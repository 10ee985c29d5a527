// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Reader (NCRISC): sticks from DRAM or L1, or from another core, into L1; and gamma and beta (weights.h).
//
// CB contract, in pages of one piece (compute.cpp):
//   pushes  cb_input           `steps` a row: the rows, each padded with zeros to whole pieces                    -> compute
//   pushes  cb_residual        as cb_input, if there is a residual                                                -> compute
//   pushes  cb_stream          of a row that is cut, with a residual: all of s, once each core's part is there; then
//                              cb_input and cb_residual have this core's columns alone                           -> compute
//   pushes  cb_statistics      for each group of rows a page, if chips' statistics are taken: first 4 rows of Dest, one for
//                              each row of the group, or four for a row alone                                     -> compute
//   uses    cb_chips           where what it reads of those statistics arrives
//   pushes  cb_gamma, cb_beta  `own_steps` once, of this core's columns, not padded                               -> compute
//
// x is padded, because the padding would reach the sums. If cb_input lies over a shard, whose rows are whole pieces, all
// its rows are pushed at once, and nothing is read but gamma and beta.
//
// The reads of two groups are in flight, each group's under a transaction id of its own. The first group comes in parts:
// its rows, or parts of its only row.
//
// Budget: transaction ids 1 to 11 of 15 (4 parts of gamma and beta, 4 of the first group, 2 groups, the first group's
// statistics); program semaphores
// 0 to 12 of 16 (4 parts of gamma, 4 of beta; the numbers 1 to 4, to be sent; parts of a row that have arrived); or, where
// cores send one another parts of s, 0 to 15 (the number 1 alone; the parts of 7 cores).
#include "weights.h"

constexpr uint32_t cb_input = get_named_compile_time_arg_val("cb_input");
constexpr uint32_t cb_residual = get_named_compile_time_arg_val("cb_residual");
constexpr uint32_t input_piece = get_named_compile_time_arg_val("input_piece");  // bytes
constexpr uint32_t input_size = get_named_compile_time_arg_val("input_size");    // of an element, bytes
constexpr uint32_t ring_groups = get_named_compile_time_arg_val("ring_groups");  // that cb_input holds
constexpr uint32_t groups_in_flight = get_named_compile_time_arg_val("groups_in_flight");
constexpr uint32_t group_rows = get_named_compile_time_arg_val("group_rows");
constexpr uint32_t row_stride = get_named_compile_time_arg_val("row_stride");  // from a row of a group to the next
constexpr bool input_is_sharded = get_named_compile_time_arg_val("input_is_sharded");
constexpr uint32_t input_semaphore = get_named_compile_time_arg_val("input_semaphore");

constexpr uint32_t input_trid = weights_trid + max_parts, group_trid = input_trid + max_parts;
constexpr uint32_t statistics_trid = group_trid + groups_in_flight;
static_assert(statistics_trid <= NOC_MAX_TRANSACTION_ID, "budget of transaction ids");

// Of rows whose columns are on several chips: their statistics, which these have made (statistics.h). A chip's are records of
// a row, in pages of `page_rows`; a chip's pages lie behind those of the chip before.
constexpr bool takes_statistics = get_named_compile_time_arg_val("takes_statistics");
constexpr uint32_t cb_statistics = get_named_compile_time_arg_val("cb_statistics");
constexpr uint32_t cb_chips = get_named_compile_time_arg_val("cb_chips");
constexpr uint32_t chips = get_named_compile_time_arg_val("chips");
constexpr uint32_t page_rows = get_named_compile_time_arg_val("page_rows");
constexpr uint32_t record_size = get_named_compile_time_arg_val("record_size"), statistics_page_size = page_rows * record_size;
constexpr uint32_t burst = 64;  // bytes, to which DRAM's addresses are aligned
constexpr uint32_t lanes = 8;   // of a row of Dest, which each chip has as many of as another
static_assert(group_rows <= max_parts, "the first group's rows are read under the transaction ids of its parts");

// Pages of rows; with a residual, of x and of the residual.
__attribute__((always_inline)) inline void reserve_rows(uint32_t pages) {
    cb_reserve_back(cb_input, pages);
    if constexpr (has_residual) {
        cb_reserve_back(cb_residual, pages);
    }
}
__attribute__((always_inline)) inline void push_rows(uint32_t pages) {
    cb_push_back(cb_input, pages);
    if constexpr (has_residual) {
        cb_push_back(cb_residual, pages);
    }
}

// The first group on its way to compute: read from DRAM by this core and sent on if others wait for it, or received.
struct FirstGroup {
    uint32_t l1, left, part_pages;  // pages, of a part
    bool receives;
    const Receivers& receivers;
    uint32_t part = 0;

    // Whether there is a next part, and it is in L1.
    __attribute__((always_inline)) bool has_arrived() const {
        if (left == 0) {
            return false;
        }
        return rows_are_cut && receives ? *semaphore(input_semaphore) > part
                                        : ncrisc_noc_read_with_transaction_id_flushed(noc_index, input_trid + part);
    }

    // Waits for the next part, sends it on, and pushes it.
    __attribute__((always_inline)) void push() {
        const uint32_t count = left < part_pages ? left : part_pages;
        if (rows_are_cut && receives) {
            noc_semaphore_wait_min(semaphore(input_semaphore), part + 1);
        } else {
            const auto wait = [this]() __attribute__((always_inline)) {
                noc_async_read_barrier_with_trid(input_trid + part);
            };
            if constexpr (rows_are_cut && !has_residual) {
                receivers.multicast(l1, l1, count * input_piece, number(part + 1), input_semaphore, wait);
                l1 += count * input_piece;
            } else {
                wait();
            }
        }
        push_rows(count);
        left -= count;
        ++part;
    }
};

// Zeros from the 32-byte boundary before `size` to the end of each of `count` rows: NoC reads want aligned addresses. The
// bytes of x that are zeroed with them are read afterwards, hence the barrier.
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

// Reads the bursts that hold a group's records; and puts each chip's pair of a row into its lanes of that row of Dest.
template <class Pages>
struct ChipStatistics {
    Pages pages;
    uint32_t chip_pages;
    uint32_t l1 = get_write_ptr(cb_chips);
    uint32_t read_slot = 0, push_slot = 0;  // of groups whose bursts are on their way, one more than in flight

    __attribute__((always_inline)) uint32_t bursts_of(uint32_t slot) const { return l1 + slot * group_rows * chips * burst; }
    static uint32_t next(uint32_t slot) { return slot == groups_in_flight ? 0 : slot + 1; }

    __attribute__((always_inline)) void read(uint32_t first_row, uint32_t count) {
        uint32_t address = bursts_of(read_slot);
        for (uint32_t row = first_row; count > 0; --count, row += row_stride) {
            const uint32_t page = row / page_rows, at = row % page_rows * record_size & ~(burst - 1);
            for (uint32_t chip = 0; chip < chips; ++chip, address += burst) {
                noc_async_read(pages.get_noc_addr(chip * chip_pages + page, at), address, burst);
            }
        }
        read_slot = next(read_slot);
    }

    __attribute__((always_inline)) void push(uint32_t first_row, uint32_t count) {
        cb_reserve_back(cb_statistics, 1);
        invalidate_l1_cache();
        volatile tt_l1_ptr uint32_t* to = reinterpret_cast<volatile tt_l1_ptr uint32_t*>(get_write_ptr(cb_statistics));
        uint32_t address = bursts_of(push_slot);
        for (uint32_t row = first_row; count > 0; --count, row += row_stride) {
            const uint32_t at = row * record_size % burst;
            for (uint32_t chip = 0; chip < chips; ++chip, address += burst) {
                const volatile tt_l1_ptr uint32_t* record =
                    reinterpret_cast<const volatile tt_l1_ptr uint32_t*>(address + at);
                const uint32_t mean = record[0], variance = record[1];
                for (uint32_t lane = chip; lane < lanes; lane += chips) {
                    for (uint32_t copy = 0; copy < (group_rows == 1 ? 4 : 1); ++copy) {
                        to[copy * 2 * lanes + 2 * lane] = mean;
                        to[copy * 2 * lanes + 2 * lane + 1] = variance;
                    }
                }
            }
            to += 2 * lanes;
        }
        push_slot = next(push_slot);
        cb_push_back(cb_statistics, 1);
    }
};

void kernel_main() {
    const uint32_t rows = RUNTIME_ARG(rows);
    const uint32_t steps = stream_is_sent ? RUNTIME_ARG(own_steps) : RUNTIME_ARG(steps);
    const uint32_t input_stick = RUNTIME_ARG(input_stick);
    // Of a row, what this core reads: from which byte on, and how many
    const uint32_t first_byte = stream_is_sent ? RUNTIME_ARG(first_step) * input_piece : 0;
    const uint32_t row_bytes = stream_is_sent ? RUNTIME_ARG(own_columns) * input_size : input_stick;
    const uint32_t first_row = RUNTIME_ARG(first_row);
    // Bit 0: whether this core receives its row; from bit 1 on: how many rectangles it sends it to
    const uint32_t exchange = rows_are_cut ? RUNTIME_ARG(exchange) : 0;
    const bool receives = (exchange & 1) != 0;
    const Sends sends{weights_are_sent ? RUNTIME_ARG(sends) : 0};

    constexpr auto input_args = TensorAccessorArgs<0>();
    constexpr auto residual_args = TensorAccessorArgs<input_args.next_compile_time_args_offset()>();
    constexpr auto statistics_args = TensorAccessorArgs<residual_args.next_compile_time_args_offset()>();
    constexpr uint32_t first_weight = statistics_args.next_compile_time_args_offset();
    if constexpr (input_is_sharded) {
        push_rows(rows * steps);
        if constexpr (has_gamma || has_beta) {
            read_weights<first_weight>(
                0, steps, input_stick / input_size, part_of(steps), all_parts, all_parts);
            push_weights(steps);
            noc_async_read_set_trid(0);
        }
        return;
    }
    const auto input = TensorAccessor(input_args, RUNTIME_ARG(input_address), rows_are_pages ? input_stick : run_page_size);
    const uint32_t row_size = steps * input_piece;
    const uint32_t input_l1 = get_write_ptr(cb_input);
    const uint32_t to_residual = has_residual ? get_write_ptr(cb_residual) - input_l1 : 0;  // from x in L1
    const auto read_from = [&](const auto& pages, uint32_t row, uint32_t at, uint32_t size, uint32_t address)
                               __attribute__((always_inline)) {
        for_each_run(pages, row, at, size, [&](uint64_t source, uint32_t count) __attribute__((always_inline)) {
            noc_async_read(source, address, count);
            address += count;
        });
    };
    // Reads the `size` bytes from `at` on of a row, and of its residual
    const auto read = [&](uint32_t row, uint32_t at, uint32_t size, uint32_t address) __attribute__((always_inline)) {
        read_from(input, row, at, size, address);
        if constexpr (has_residual) {
            const auto residual = TensorAccessor(
                residual_args, RUNTIME_ARG(residual_address), rows_are_pages ? input_stick : run_page_size);
            read_from(residual, row, at, size, address + to_residual);
        }
    };

    const uint32_t first_rows = rows < group_rows ? rows : group_rows;
    const auto statistics_pages =
        TensorAccessor(statistics_args, takes_statistics ? RUNTIME_ARG(statistics_address) : 0, statistics_page_size);
    ChipStatistics<std::decay_t<decltype(statistics_pages)>> statistics{statistics_pages, takes_statistics ? RUNTIME_ARG(chip_pages) : 0};

    ASSERT(rows > 0);
    ASSERT(row_bytes <= row_size && row_bytes + input_piece > row_size);
    assert_cb(cb_input, stream_is_sent ? RUNTIME_ARG(weight_pages) : ring_groups * group_rows * steps, input_piece);

    // Once for each place of a row in the ring: later reads are as long as a stick and leave the padding as it is. A row
    // that is received comes with its padding.
    if (row_bytes != row_size && !receives) {
        const uint32_t places = rows < ring_groups * group_rows ? rows : ring_groups * group_rows;
        zero_padding(input_l1, places, row_bytes, row_size);
        if constexpr (has_residual) {
            zero_padding(input_l1 + to_residual, places, row_bytes, row_size);
        }
    }

    // No room is reserved for the first group, gamma and beta: the CBs are empty when a launch starts.
    const uint32_t own_steps = rows_are_cut ? RUNTIME_ARG(own_steps) : steps;
    const uint32_t weight_part_pages = weights_are_sent ? RUNTIME_ARG(weight_part_pages) : part_of(own_steps);
    const auto issue_weights = [&](uint32_t gamma_parts, uint32_t beta_parts) __attribute__((always_inline)) {
        read_weights<first_weight>(
            rows_are_cut ? RUNTIME_ARG(first_step) : 0, own_steps,
            rows_are_cut ? RUNTIME_ARG(own_columns) : input_stick / input_size, weight_part_pages, gamma_parts, beta_parts);
    };
    if (sends.word != 0) {
        issue_weights(sends.gamma_parts(), sends.beta_parts());
    }
    if constexpr (takes_statistics) {
        noc_async_read_set_trid(statistics_trid);
        statistics.read(first_row, first_rows);
    }
    const uint32_t part_pages = group_rows == 1 ? part_of(steps) : steps;
    if constexpr (group_rows == 1) {
        if (!receives) {
            Stick stick{rows_are_pages ? input.get_noc_addr(first_row) : 0, input_l1, input_stick};
            for_each_part(steps, part_pages, [&](uint32_t part, uint32_t) __attribute__((always_inline)) {
                noc_async_read_set_trid(input_trid + part);
                if constexpr (rows_are_pages && !has_residual) {
                    stick.read(part_pages * input_piece);
                } else {
                    const uint32_t at = part * part_pages * input_piece, left = row_bytes - at;
                    const uint32_t size = part_pages * input_piece;
                    read(first_row, first_byte + at, left < size ? left : size, input_l1 + at);
                }
            });
        }
    } else {
        for (uint32_t row = 0; row < first_rows; ++row) {
            noc_async_read_set_trid(input_trid + row);
            read(first_row + row * row_stride, 0, input_stick, input_l1 + row * row_size);
        }
    }
    if constexpr (reader_reads_weights && !weights_are_sent) {
        issue_weights(all_parts, all_parts);
    }
    const uint32_t group_stride = RUNTIME_ARG(group_stride);  // rows from the first of a group to the first of the next
    uint32_t issued = first_rows, pushed = 0;                 // rows
    uint32_t issued_row = first_row + group_stride;
    uint32_t issued_l1 = input_l1 + group_rows * row_size;
    const uint32_t end_l1 = input_l1 + ring_groups * group_rows * row_size;
    uint32_t issue_trid = 0, push_trid = 0;

    const auto issue_group = [&]() __attribute__((always_inline)) {
        if (issued >= rows) {
            return;
        }
        const uint32_t count = rows - issued < group_rows ? rows - issued : group_rows;
        issued += count;
        reserve_rows((issued - pushed) * steps);  // counts from the last push: groups in flight are among them
        noc_async_read_set_trid(group_trid + issue_trid);
        issue_trid = issue_trid + 1 == groups_in_flight ? 0 : issue_trid + 1;
        if constexpr (takes_statistics) {
            statistics.read(issued_row, count);
        }
        uint32_t address = issued_l1;
        for (uint32_t row = 0; row < count; ++row) {
            read(issued_row + row * row_stride, 0, input_stick, address);
            address += row_size;
        }
        issued_row += group_stride;
        issued_l1 = address == end_l1 ? input_l1 : address;
    };

    issue_group();

    if constexpr (takes_statistics) {
        noc_async_read_barrier_with_trid(statistics_trid);
        statistics.push(first_row, first_rows);
    }
    const Receivers receivers(ARG_POSITION(rectangles), exchange >> 1);
    FirstGroup first_group{input_l1, first_rows * steps, part_pages, receives, receivers};
    if constexpr (weights_are_sent) {
        SentGamma gamma{has_gamma ? own_steps : 0, weight_part_pages, sends.gamma_parts()};
        SentBeta beta{has_beta ? own_steps : 0, weight_part_pages, sends.beta_parts()};
        uint32_t marked = sends.word != 0 ? 0 : max_parts;  // parts, whether this core's or not
        while (first_group.left != 0 || gamma.pushed != gamma.pages || beta.pushed != beta.pages) {
            if (marked != max_parts && ncrisc_noc_read_with_transaction_id_flushed(noc_index, weights_trid + marked)) {
                gamma.mark(marked);
                beta.mark(marked);
                ++marked;
            }
            invalidate_l1_cache();
            if (first_group.has_arrived()) {
                first_group.push();
            }
            gamma.push();
            beta.push();
        }
    } else {
        while (first_group.left != 0) {
            first_group.push();
        }
        if constexpr (reader_reads_weights && (has_gamma || has_beta)) {
            push_weights(own_steps);
        }
    }
    if constexpr (stream_is_sent) {
        const uint32_t members = RUNTIME_ARG(members);
        for (uint32_t member = 0; member < members; ++member) {
            noc_semaphore_wait(semaphore(stream_semaphores + member), 1);
        }
        cb_push_back(cb_stream, RUNTIME_ARG(stream_pages));
    }
    pushed = first_rows;
    uint32_t pushed_row = first_row;
    while (pushed < rows) {
        issue_group();
        noc_async_read_barrier_with_trid(group_trid + push_trid);
        push_trid = push_trid + 1 == groups_in_flight ? 0 : push_trid + 1;
        const uint32_t end = pushed + group_rows < rows ? pushed + group_rows : rows;
        if constexpr (takes_statistics) {
            pushed_row += group_stride;
            statistics.push(pushed_row, end - pushed);
        }
        push_rows((end - pushed) * steps);
        pushed = end;
    }
    noc_async_read_set_trid(0);
    noc_async_write_barrier();  // of the multicasts
}
