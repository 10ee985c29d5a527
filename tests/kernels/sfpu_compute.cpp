// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Compute (TRISC0-2) of the SFPU tests: one SFPU operation on each pair of tiles (a, b).
//
// CB contract, in pages of one tile:
//   pops    cb_in   a and b of each pair  <- sfpu_reader.cpp
//   pushes  cb_out  one result a pair     -> sfpu_writer.cpp
// Runtime arguments: a float's bits, an int, the count of pairs, and an operation for each: its place in OPERATIONS,
// the list of names that the host defines.
#include <cstdint>

#include "api/compute/common.h"
#include "api/compute/compute_kernel_hw_startup.h"
#include "api/compute/eltwise_unary/rsqrt.h"
#include "api/compute/tile_move_copy.h"

using namespace ckernel;

constexpr uint32_t cb_in = 0, cb_out = 16;
constexpr uint32_t a_slot = 0, b_slot = 1, result_slot = 2;  // tiles in Dest

enum Operation : uint32_t { OPERATIONS };

#ifdef TRISC_MATH
#include "sfpi.h"

using namespace sfpi;

constexpr uint32_t tile_vectors = 32;
constexpr uint32_t result_base = result_slot * tile_vectors;

// result = f(a, b), vector by vector
template <class F>
sfpi_inline void map(F f) {
    for (uint32_t i = 0; i < tile_vectors; ++i) {
        vFloat a = dst_reg[a_slot * tile_vectors], b = dst_reg[b_slot * tile_vectors];
        dst_reg[result_base] = vFloat(f(a, b));
        dst_reg++;
    }
}

sfpi_inline vFloat as_number(vInt v) { return convert<vFloat>(v, RoundMode::Nearest); }

// Result vectors 4 i .. 4 i + 3 from a's: what moves lanes between vectors.
template <class F>
sfpi_inline void map_fours(F f) {
    for (uint32_t i = 0; i < tile_vectors; i += 4) {
        vFloat p = dst_reg[0], q = dst_reg[1], r = dst_reg[2], s = dst_reg[3];
        f(p, q, r, s);
        dst_reg[result_base] = p;
        dst_reg[result_base + 1] = q;
        dst_reg[result_base + 2] = r;
        dst_reg[result_base + 3] = s;
        dst_reg += 4;
    }
}

// The sum of all 32 lanes, in every lane.
sfpi_inline vFloat sum_of_lanes(vFloat v) {
    vFloat p = v, q = v, r = v, s = v;
    subvec_transp(p, q, r, s);
    vFloat sum = (p + q) + (r + s);
    for (uint32_t i = 0; i < 3; ++i) {
        vFloat moved = sum;
        for (uint32_t n = 0; n < 1u << i; ++n) {
            moved = vFloat(subvec_shflror1(moved));
        }
        sum += moved;
    }
    return sum;
}

void calculate(Operation operation, uint32_t float_bits, int number) {
    const float scalar = __builtin_bit_cast(float, float_bits);
    switch (operation) {
        case add: map([](vFloat a, vFloat b) { return a + b; }); break;
        case subtract: map([](vFloat a, vFloat b) { return a - b; }); break;
        case multiply: map([](vFloat a, vFloat b) { return a * b; }); break;
        case negate: map([](vFloat a, vFloat) { return -a; }); break;
        case absolute: map([](vFloat a, vFloat) { return abs(a); }); break;
        case multiply_add: map([](vFloat a, vFloat b) { return a * b + a; }); break;
        case multiply_subtract: map([](vFloat a, vFloat b) { return a * b - a; }); break;
        case subtract_product: map([](vFloat a, vFloat b) { return a - a * b; }); break;
        case add_negative_product: map([](vFloat a, vFloat b) { return a + -a * b; }); break;
        case sum_of_products: map([](vFloat a, vFloat b) { return a * b + b * b; }); break;
        case negative_product: map([](vFloat a, vFloat b) { return -(a * b); }); break;
        case accumulate:
            map([](vFloat a, vFloat b) {
                vFloat sum = a;
                sum += b;
                sum -= 1.0f;
                sum *= 0.5f;
                return sum;
            });
            break;
        case polynomial_in_a: map([](vFloat a, vFloat b) { return polynomial(a, b, 0.5f, -0.25f); }); break;
        case constants:
            map([](vFloat a, vFloat) { return a * 1.0f + 0.1f + vFloat(sFloat16b(3.0f)) + -1.0f + 0.0f; });
            break;
        case programmable_constant:
            vConstFloatPrgm0 = 0.7f;
            map([](vFloat a, vFloat) { return a * vConstFloatPrgm0 + vConstFloatPrgm0; });
            break;
        case runtime_float: map([=](vFloat a, vFloat) { return a * scalar + vFloat(scalar); }); break;
        case runtime_int: map([=](vFloat a, vFloat) { return as_number(exexp(a) + number); }); break;
        case runtime_address:
            for (uint32_t i = 0; i < tile_vectors; ++i) {
                vFloat a = dst_reg[tile_vectors - 1 - i];
                dst_reg[result_base + i] = a;
            }
            break;
        case tile_id: map([](vFloat, vFloat) { return as_number(vConstTileId); }); break;
        case conditional:
            map([](vFloat a, vFloat b) {
                vFloat r = a;
                v_if(a < 0.0f) { r = b; }
                v_elseif(a < b) { r = a * 2.0f; }
                v_else { r += 10.0f; }
                v_endif;
                return r;
            });
            break;
        case conditional_first:  // r has no value before
            map([](vFloat a, vFloat b) {
                vFloat r;
                v_if(a >= b) { r = a; }
                v_else { r = b; }
                v_endif;
                return r;
            });
            break;
        case conditional_nested:
            map([](vFloat a, vFloat b) {
                vFloat r = 0.0f;
                v_if(a > 0.0f) {
                    r = 1.0f;
                    v_if(b > 0.0f) { r = 2.0f; }
                    v_else { r += 2.0f; }
                    v_endif;
                    v_and(a > b);
                    r += 10.0f;
                }
                v_endif;
                return r;
            });
            break;
        case conditional_copies:  // GCC copies registers while the predicate is narrow
            map([](vFloat a, vFloat b) {
                vFloat p = a, q = b, old = a;
                v_if(a < b) {
                    vFloat t = p;
                    p = q;
                    q = t;
                    old = p + q;
                    p += old;
                }
                v_endif;
                return (p - q) * 4.0f + old + a * b;
            });
            break;
        case logic:
            map([](vFloat a, vFloat b) {
                vFloat r = 0.0f;
                v_if(a < 0.0f || b < 0.0f) { r += 1.0f; }
                v_endif;
                v_if(!(a < 0.0f && b < 0.0f)) { r += 2.0f; }
                v_endif;
                vBool kept = a < b;
                v_if(kept && (a >= 1.0f || !(b < 1.0f))) { r += 4.0f; }
                v_endif;
                v_block {
                    v_and(a < 2.0f);
                    v_and(b < 2.0f);
                    r += 8.0f;
                }
                v_endblock;
                return r;
            });
            break;
        case comparisons:
            map([](vFloat a, vFloat b) {
                vFloat r = 0.0f;
                v_if(a < b) { r += 1.0f; }
                v_endif;
                v_if(a <= b) { r += 2.0f; }
                v_endif;
                v_if(a > b) { r += 4.0f; }
                v_endif;
                v_if(a >= b) { r += 8.0f; }
                v_endif;
                v_if(a == b) { r += 16.0f; }
                v_endif;
                v_if(a != b) { r += 32.0f; }
                v_endif;
                v_if(a > 1.5f) { r += 64.0f; }
                v_endif;
                v_if(a <= 1.5f) { r += 128.0f; }
                v_endif;
                return r;
            });
            break;
        case integer_comparisons:
            map([=](vFloat a, vFloat b) {
                vInt i = exexp(a), j = exexp(b);
                vFloat r = 0.0f;
                v_if(i < j) { r += 1.0f; }
                v_endif;
                v_if(i <= j) { r += 2.0f; }
                v_endif;
                v_if(i > j) { r += 4.0f; }
                v_endif;
                v_if(i == j) { r += 8.0f; }
                v_endif;
                v_if(i > 0) { r += 16.0f; }
                v_endif;
                v_if(i <= 0) { r += 32.0f; }
                v_endif;
                v_if(i >= number) { r += 64.0f; }
                v_endif;
                v_if(i <= number) { r += 128.0f; }
                v_endif;
                return r;
            });
            break;
        case integer_arithmetic:
            map([](vFloat a, vFloat b) {
                vInt i = exexp(a), j = exexp(b);
                return as_number((i + j) + (i - j) + (i + 100) + (j - 7) + (5000 - i) - (j + 100000) + -i);
            });
            break;
        case bits:
            map([](vFloat a, vFloat b) {
                vUInt m = exman(a, MantissaMode::WithUnitBit), n = exman(b);
                vUInt mixed = ((m & n) | (m ^ (n >> 3))) + ((m << 2) & 0xffff) + (~n & 0xff);
                return as_number(as<vInt>(mixed));
            });
            break;
        case shift_by_vector:
            map([](vFloat a, vFloat b) { return as_number(as<vInt>(exman(a) >> as<vUInt>(exexp(b) & 7))); });
            break;
        case fields:
            map([](vFloat a, vFloat b) {
                return setexp(setsgn(a, 1), 130) + copysgn(a, b) + copyexp(a, b) + copyman(a, b) + addexp(a, 3) +
                       setexp(b, exexp(a, ExponentMode::Biased)) + setman(a, 0);
            });
            break;
        case to_bfloat16: map([](vFloat a, vFloat) { return convert<vFloat16b>(a, RoundMode::Nearest); }); break;
        case to_integer:
            map([](vFloat a, vFloat) {
                return convert<vFloat>(convert<vSMag16>(a, RoundMode::Nearest), RoundMode::Nearest);
            });
            break;
        case nearest_integer:
            map([](vFloat a, vFloat) {
                auto nearest = round(a);
                return vFloat(nearest) + as_number(nearest);
            });
            break;
        case least: map([](vFloat a, vFloat b) { return min(a, b); }); break;
        case greatest: map([](vFloat a, vFloat b) { return max(a, b) + clamp(a, -1.0f, 1.0f); }); break;
        case exchanged:
            map([](vFloat a, vFloat b) {
                swap(a, b);
                return a * 2.0f + b;
            });
            break;
        case classes:
            map([](vFloat a, vFloat) {
                vFloat r = 0.0f;
                v_if(is_nan(a)) { r += 1.0f; }
                v_endif;
                v_if(is_inf(a)) { r += 2.0f; }
                v_endif;
                v_if(is_finite(a)) { r += 4.0f; }
                v_endif;
                v_if(is_zero(a)) { r += 8.0f; }
                v_endif;
                return r;
            });
            break;
        case transposed:
            map_fours([](vFloat& p, vFloat& q, vFloat& r, vFloat& s) { subvec_transp(p, q, r, s); });
            break;
        case rotated: map([](vFloat a, vFloat) { return vFloat(subvec_shflror1(a)); }); break;
        case rotated_sum: map([](vFloat a, vFloat b) { return vFloat(subvec_shflror1(a + b)) + a; }); break;
        case total: map([](vFloat a, vFloat) { return sum_of_lanes(a); }); break;
        case eight_live:
            for (uint32_t i = 0; i < tile_vectors; i += 8) {
                vFloat v[8];
#pragma GCC unroll 8
                for (uint32_t k = 0; k < 8; ++k) {
                    v[k] = dst_reg[k];
                }
#pragma GCC unroll 8
                for (uint32_t k = 0; k < 8; ++k) {
                    dst_reg[result_base + k] = v[7 - k];
                }
                dst_reg += 4;  // 7 at most
                dst_reg += 4;
            }
            break;
#ifdef ARCH_BLACKHOLE
        case shifted_lanes: map([](vFloat a, vFloat) { return vFloat(subvec_shflshr1(a)); }); break;
        case arithmetic_shift: map([](vFloat a, vFloat) { return as_number(exexp(a) >> 1); }); break;
#endif
        default: break;
    }
}
#endif

void kernel_main() {
    const uint32_t float_bits = get_arg_val<uint32_t>(0);
    const int number = get_arg_val<int>(1);
    const uint32_t pairs = get_arg_val<uint32_t>(2);

    compute_kernel_hw_startup(cb_in, cb_out);
    copy_init(cb_in);
    rsqrt_tile_init();  // the SFPU's setup, too

    for (uint32_t pair = 0; pair < pairs; ++pair) {
        const Operation operation = Operation(get_arg_val<uint32_t>(3 + pair));
        cb_wait_front(cb_in, 2);
        tile_regs_acquire();
        copy_tile(cb_in, 0, operation == rsqrt ? result_slot : a_slot);
        copy_tile(cb_in, 1, b_slot);
        if (operation == rsqrt) {
            rsqrt_tile(result_slot);
        } else {
            MATH((_llk_math_eltwise_unary_sfpu_params_([&] { calculate(operation, float_bits, number); }, 0,
                                                       VectorMode::None)));
        }
        tile_regs_commit();
        cb_pop_front(cb_in, 2);

        cb_reserve_back(cb_out, 1);
        tile_regs_wait();
        pack_tile(result_slot, cb_out);
        tile_regs_release();
        cb_push_back(cb_out, 1);
    }
}
