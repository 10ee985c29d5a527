// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// One function an SFPU instruction, on LREGs that GCC allocates.
//
// Why GCC's own register copies are right under a lane predicate (v_if):
//  - GCC knows nothing of predicates: it sees straight-line code, and may insert a copy (fmv.s) between any two
//    operations. tensix.s makes that an SFPMOV over ALL lanes: the copy equals its original in every lane, enabled or
//    not, wherever GCC inserts it.
//  - An operation under a predicate writes only the enabled lanes of its result, a fresh value ("=f"): the disabled
//    lanes hold whatever the register held before, and must not be read. Old and new lanes are merged by assignment to
//    a variable that has a value (vVal::operator=) alone: a predicated SFPMOV with the variable as an in-out operand
//    ("+f"). Its disabled lanes keep the old value, because GCC must have all of that in the register that the SFPMOV
//    writes to.
//  - An instruction that reads its destination (SFPIADD, SFPAND, SFPSWAP ...) takes it as in-out, too; if the old
//    value is still live, GCC copies it first.
//  - Every asm is volatile: none is dropped, merged or moved past a change of the predicate.
// Eight vectors can be live. A ninth would make GCC spill one (fsw) or move it to a general register, which are errors
// in tensix.s.
#pragma once

extern volatile std::uint32_t __instrn_buffer[];  // a store here issues the stored word as a Tensix instruction

namespace sfpi::impl_ {

// One LREG.
struct sfpu_t {
    float v;
};

// Operands of the functions below: an LREG, or the number (8-15) of a constant register.
sfpi_inline float operand(sfpu_t r) { return r.v; }
constexpr sfpi_inline int operand(unsigned constant_register) { return int(constant_register); }

// An instruction's immediate field of 12 bits, for a value that is known at compile time and lies in low..high.
sfpi_inline int immediate(int value, int low = -2048, int high = 2047) {
    if (!__builtin_constant_p(value)) {
        refuse_runtime_immediate();
    } else if (value < low || value > high) {
        refuse_immediate_range();
    }
    return value & 0xfff;
}

// Returns a * b + c, partially fused: one rounding, to nearest even; subnormals are flushed to zero.
// Mod, Blackhole only: 1 negates a, 2 negates c.
template <unsigned Mod, class A, class B, class C>
sfpi_inline sfpu_t sfpmad(A a, B b, C c) {
    sfpu_t d;
    asm volatile("sfpmad %1, %2, %3, %0, %4"
                 : "=f"(d.v)
                 : "fi"(operand(a)), "fi"(operand(b)), "fi"(operand(c)), "i"(Mod));
    return d;
}

template <unsigned Mod, class B, class C>
sfpi_inline sfpu_t sfpadd(B b, C c) {
    sfpu_t d;
    asm volatile("sfpadd %1, %2, %0, %3" : "=f"(d.v) : "fi"(operand(b)), "fi"(operand(c)), "i"(Mod));
    return d;
}

template <unsigned Mod, class A, class B>
sfpi_inline sfpu_t sfpmul(A a, B b) {
    sfpu_t d;
    asm volatile("sfpmul %1, %2, %0, %3" : "=f"(d.v) : "fi"(operand(a)), "fi"(operand(b)), "i"(Mod));
    return d;
}

// op<Mod>(c, imm) makes a fresh value; op_onto<Mod>(d, c, imm) reads and overwrites d. imm is an immediate().
#define SFPI_FROM(op)                                                                           \
    template <unsigned Mod, class C>                                                            \
    sfpi_inline sfpu_t op(C c, int imm = 0) {                                                   \
        sfpu_t d;                                                                               \
        asm volatile(#op " %2, %1, %0, %3" : "=f"(d.v) : "fi"(operand(c)), "i"(imm), "i"(Mod)); \
        return d;                                                                               \
    }
#define SFPI_ONTO(op)                                                                           \
    template <unsigned Mod, class C>                                                            \
    sfpi_inline sfpu_t op##_onto(sfpu_t d, C c, int imm = 0) {                                  \
        asm volatile(#op " %2, %1, %0, %3" : "+f"(d.v) : "fi"(operand(c)), "i"(imm), "i"(Mod)); \
        return d;                                                                               \
    }
SFPI_FROM(sfpmov) SFPI_ONTO(sfpmov)
SFPI_FROM(sfpabs)
SFPI_FROM(sfpexexp)
SFPI_FROM(sfpexman)
SFPI_FROM(sfpdivp2)
SFPI_FROM(sfplz)
SFPI_FROM(sfpnot)
SFPI_FROM(sfpcast)
SFPI_FROM(sfparecip)
SFPI_FROM(sfpshft2)
SFPI_FROM(sfpsetexp) SFPI_ONTO(sfpsetexp)
SFPI_FROM(sfpsetman) SFPI_ONTO(sfpsetman)
SFPI_FROM(sfpsetsgn) SFPI_ONTO(sfpsetsgn)
SFPI_FROM(sfpiadd) SFPI_ONTO(sfpiadd)
SFPI_FROM(sfpshft) SFPI_ONTO(sfpshft)
SFPI_ONTO(sfpand)
SFPI_ONTO(sfpor)
SFPI_ONTO(sfpxor)
#undef SFPI_FROM
#undef SFPI_ONTO

template <unsigned Mod, unsigned Rounding>
sfpi_inline sfpu_t sfpstochrnd(sfpu_t c) {
    sfpu_t d;
    asm volatile("sfpstochrnd %2, %1, %0, %3" : "=f"(d.v) : "f"(c.v), "i"(Rounding), "i"(Mod));
    return d;
}

// Mod 0: swaps c and d. Mod 1: d gets the lesser and c the greater, by sign and magnitude.
template <unsigned Mod>
sfpi_inline void sfpswap(sfpu_t& c, sfpu_t& d) {
    asm volatile("sfpswap 0, %0, %1, %2" : "+f"(c.v), "+f"(d.v) : "i"(Mod));
}

// Transposes the 4x4 matrix of rows (eight lanes each) that a, b, c, d form. The instruction names no registers: it
// transposes LREG0-3, and LREG4-7 as well, so no vector may be live in those across it.
sfpi_inline void sfptransp(sfpu_t& a, sfpu_t& b, sfpu_t& c, sfpu_t& d) {
    register float lreg0 asm("ft0") = a.v;
    register float lreg1 asm("ft1") = b.v;
    register float lreg2 asm("ft2") = c.v;
    register float lreg3 asm("ft3") = d.v;
    asm volatile("sfptransp"
                 : "+f"(lreg0), "+f"(lreg1), "+f"(lreg2), "+f"(lreg3)
                 :
                 : "ft4", "ft5", "ft6", "ft7");
    a.v = lreg0;
    b.v = lreg1;
    c.v = lreg2;
    d.v = lreg3;
}

// Writes LREG `Number` (11-14), in all lanes, from the first row of `value`. SFPCONFIG reads LREG0 only.
template <unsigned Number>
sfpi_inline void sfpconfig(sfpu_t value) {
    register float lreg0 asm("ft0") = value.v;
    asm volatile("sfpconfig %1" : : "f"(lreg0), "i"(Number));
}

// The same 32 bits in all lanes, by one SFPLOADI where 16 of them are zero, else by two.
sfpi_inline sfpu_t load_immediate(std::uint32_t bits) {
    sfpu_t d;
    if (!__builtin_constant_p(bits)) {
        std::uint32_t word;
        asm volatile("sfploadi_rt %0, %4, %2, %3, %1"
                     : "=f"(d.v), "=&r"(word)
                     : "r"(bits & 0xffff), "r"(__instrn_buffer), "i"(SFPLOADI_MOD0_LOWER));
        asm volatile("sfploadi_rt %0, %4, %2, %3, %1"
                     : "+f"(d.v), "=&r"(word)
                     : "r"(bits >> 16), "r"(__instrn_buffer), "i"(SFPLOADI_MOD0_UPPER));
    } else if ((bits & 0xffff) == 0) {
        asm volatile("sfploadi %0, %2, %1" : "=f"(d.v) : "i"(bits >> 16), "i"(SFPLOADI_MOD0_FLOATB));
    } else if ((bits >> 16) == 0) {
        asm volatile("sfploadi %0, %2, %1" : "=f"(d.v) : "i"(bits), "i"(SFPLOADI_MOD0_USHORT));
    } else {
        asm volatile("sfploadi %0, %2, %1" : "=f"(d.v) : "i"(bits & 0xffff), "i"(SFPLOADI_MOD0_LOWER));
        asm volatile("sfploadi %0, %2, %1" : "+f"(d.v) : "i"(bits >> 16), "i"(SFPLOADI_MOD0_UPPER));
    }
    return d;
}

// Dest row `row` (even) and the three behind it, of the columns that row & 2 selects.
template <unsigned Mod>
sfpi_inline sfpu_t sfpload(unsigned row, unsigned addr_mode) {
    sfpu_t d;
    if (__builtin_constant_p(row)) {
        asm volatile("sfpload %0, %3, %1, %2" : "=f"(d.v) : "i"(addr_mode), "i"(row), "i"(Mod));
    } else {
        std::uint32_t word;
        asm volatile("sfpload_rt %0, %5, %2, %3, %4, %1"
                     : "=f"(d.v), "=&r"(word)
                     : "i"(addr_mode), "r"(row), "r"(__instrn_buffer), "i"(Mod));
    }
    return d;
}

template <unsigned Mod>
sfpi_inline void sfpstore(sfpu_t s, unsigned row, unsigned addr_mode) {
    if (__builtin_constant_p(row)) {
        asm volatile("sfpstore %0, %3, %1, %2" : : "f"(s.v), "i"(addr_mode), "i"(row), "i"(Mod));
    } else {
        std::uint32_t word;
        asm volatile("sfpstore_rt %1, %5, %2, %3, %4, %0"
                     : "=&r"(word)
                     : "f"(s.v), "i"(addr_mode), "r"(row), "r"(__instrn_buffer), "i"(Mod));
    }
}

// ---- Arithmetic that the two architectures spell differently

// Whether SFPMUL, SFPADD and SFPMAD can negate operands.
#if __riscv_xtttensixbh
constexpr bool signs_are_free = true;
#else
constexpr bool signs_are_free = false;
#endif

template <class X>
sfpi_inline auto negated(X x) { return sfpmov<SFPMOV_MOD1_COMPSIGN>(x); }

// (Negative ? -a : a) * b
template <bool Negative, class A, class B>
sfpi_inline sfpu_t product(A a, B b) {
#if __riscv_xtttensixbh
    return sfpmul<Negative>(a, b);
#else
    if constexpr (Negative) {
        return sfpmul<0>(negated(a), b);
    } else {
        return sfpmul<0>(a, b);
    }
#endif
}

// (NegativeA ? -a : a) * b + (NegativeC ? -c : c)
template <bool NegativeA, bool NegativeC, class A, class B, class C>
sfpi_inline sfpu_t product_plus(A a, B b, C c) {
#if __riscv_xtttensixbh
    return sfpmad<NegativeA | NegativeC << 1>(a, b, c);
#else
    if constexpr (NegativeA) {
        return product_plus<false, NegativeC>(negated(a), b, c);
    } else if constexpr (NegativeC) {
        return sfpmad<0>(a, b, negated(c));
    } else {
        return sfpmad<0>(a, b, c);
    }
#endif
}

template <class A, class B>
sfpi_inline sfpu_t difference(A a, B b) {
#if __riscv_xtttensixbh
    return sfpadd<2>(a, b);
#else
    return sfpmad<0>(b, CREG_IDX_NEG_1, a);
#endif
}

// ---- Integers

template <class B>
sfpi_inline sfpu_t int_add(sfpu_t a, B b) { return sfpiadd_onto<SFPIADD_MOD1_CC_NONE>(a, b); }

template <class A>
sfpi_inline sfpu_t int_sub(A a, sfpu_t b) {
    return sfpiadd_onto<SFPIADD_MOD1_CC_NONE | SFPIADD_MOD1_ARG_2SCOMP_LREG_DST>(b, a);
}

// Adds an immediate in -2048..2047.
template <class A>
sfpi_inline sfpu_t int_add_immediate(A a, int b) {
    return sfpiadd<SFPIADD_MOD1_CC_NONE | SFPIADD_MOD1_ARG_IMM>(a, immediate(b));
}

// Shifts by -31..31, left if positive. Arithmetic right shifts are Blackhole's.
template <bool Arithmetic>
sfpi_inline sfpu_t shift_immediate(sfpu_t a, int n) {
#if __riscv_xtttensixbh
    constexpr unsigned mod = SFPSHFT_MOD1_SHIFT_IMM | SFPSHFT_MOD1_SRC_LREGC;
    return sfpshft<mod | (Arithmetic ? SFPSHFT_MOD1_ARITHMETIC : 0)>(a, immediate(n, -31, 31));
#else
    static_assert(!Arithmetic, "Wormhole has no arithmetic right shift");
    return sfpshft_onto<SFPSHFT_MOD1_SHIFT_IMM>(a, CREG_IDX_0, immediate(n, -31, 31));
#endif
}

template <bool Arithmetic>
sfpi_inline sfpu_t shift(sfpu_t a, sfpu_t n) {
#if !__riscv_xtttensixbh
    static_assert(!Arithmetic, "Wormhole has no arithmetic right shift");
#endif
    return sfpshft_onto<Arithmetic ? SFPSHFT_MOD1_ARITHMETIC : SFPSHFT_MOD1_LOGICAL>(a, n);
}

}  // namespace sfpi::impl_
