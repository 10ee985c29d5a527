// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Conditions, and v_if: blocks whose assignments reach only the lanes in which a condition holds.
//
// The SFPU has one lane predicate and a stack of them. SFPSETCC narrows the predicate to the enabled lanes in which one
// LREG passes a test against zero. So a && b is one SFPSETCC after another, and a || b is !(!a && !b), by a vector of
// flags.
#pragma once

namespace sfpi {

namespace impl_ {

struct Condition {};
template <class T>
constexpr bool is_conditional = std::is_base_of_v<Condition, T>;

// One test of one LREG. SFPSETCC's four tests are two pairs of opposites that differ in bit 2. "Less than zero" is
// the sign bit: it holds for -0.0 and for a NaN with its sign set.
struct Test : Condition {
    sfpu_t value;
    unsigned mod;

    sfpi_inline Test(sfpu_t value_, unsigned mod_) : value(value_), mod(mod_) {}
    sfpi_inline void narrow() const { asm volatile("sfpsetcc %0, %1" : : "f"(value.v), "i"(mod)); }
    sfpi_inline Test opposite() const { return {value, mod ^ 4}; }
};

template <class A, class B>
struct Or;

template <class A, class B>
struct And : Condition {
    A a;
    B b;

    sfpi_inline And(A a_, B b_) : a(a_), b(b_) {}
    sfpi_inline void narrow() const {
        a.narrow();
        b.narrow();
    }
    sfpi_inline auto opposite() const {
        return Or<decltype(a.opposite()), decltype(b.opposite())>(a.opposite(), b.opposite());
    }
};

// `value` (0 or 1) in the lanes in which `condition` holds, 1 - value in the others.
template <class C>
sfpi_inline sfpu_t flags(const C& condition, unsigned value) {
    sfpu_t flag = load_immediate(1 - value);
    asm volatile("sfppushc");
    condition.narrow();
    asm volatile("sfploadi %0, %2, %1" : "+f"(flag.v) : "i"(value), "i"(SFPLOADI_MOD0_USHORT));
    asm volatile("sfppopc");
    return flag;
}

template <class A, class B>
struct Or : Condition {
    A a;
    B b;

    sfpi_inline Or(A a_, B b_) : a(a_), b(b_) {}
    sfpi_inline auto opposite() const {
        return And<decltype(a.opposite()), decltype(b.opposite())>(a.opposite(), b.opposite());
    }
    sfpi_inline void narrow() const { Test(flags(opposite(), 0), SFPSETCC_MOD1_LREG_NE0).narrow(); }
};

}  // namespace impl_

// A condition kept in an LREG.
struct vBool : impl_::Condition {
    impl_::sfpu_t flag;

    vBool() = default;
    template <class C, impl_::If<impl_::is_conditional<C> && !std::is_same_v<C, vBool>> = 0>
    sfpi_inline vBool(const C& condition) : flag(impl_::flags(condition, 1)) {}
    sfpi_inline void narrow() const { impl_::Test(flag, SFPSETCC_MOD1_LREG_NE0).narrow(); }
    sfpi_inline impl_::Test opposite() const { return {flag, SFPSETCC_MOD1_LREG_EQ0}; }
};

namespace impl_ {

template <class A, class B, If<is_conditional<A> && is_conditional<B>> = 0>
sfpi_inline And<A, B> operator&&(A a, B b) {
    return {a, b};
}
template <class A, class B, If<is_conditional<A> && is_conditional<B>> = 0>
sfpi_inline Or<A, B> operator||(A a, B b) {
    return {a, b};
}
template <class A, If<is_conditional<A>> = 0>
sfpi_inline auto operator!(A a) {
    return a.opposite();
}

// a - b, or a itself if b is zero: comparisons test it against zero. Where the difference of two integers overflows, an
// order of the two is wrong.
template <class A, class B>
sfpi_inline sfpu_t compared(const A& a, const B& b) {
    using T = common_t<A, B>;
    if constexpr (std::is_arithmetic_v<B>) {
        if (__builtin_constant_p(b) && b == 0) {
            return to<T>(a).get();
        }
    }
    return (a - b).get();
}

#define SFPI_COMPARE(symbol, mod)                              \
    template <class A, class B, If<are_operands<A, B>> = 0>    \
    sfpi_inline Test operator symbol(const A& a, const B& b) { \
        return {compared(a, b), mod};                          \
    }
SFPI_COMPARE(==, SFPSETCC_MOD1_LREG_EQ0)
SFPI_COMPARE(!=, SFPSETCC_MOD1_LREG_NE0)
SFPI_COMPARE(<, SFPSETCC_MOD1_LREG_LT0)
SFPI_COMPARE(>=, SFPSETCC_MOD1_LREG_GTE0)
#undef SFPI_COMPARE

// a > b is a - b >= 0 and a - b != 0. For integers one test does: a - (b + 1) >= 0, or b - a < 0.
template <class A, class B, If<are_operands<A, B>> = 0>
sfpi_inline auto operator>(const A& a, const B& b) {
    if constexpr (std::is_same_v<common_t<A, B>, vFloat>) {
        sfpu_t d = compared(a, b);
        return Test(d, SFPSETCC_MOD1_LREG_GTE0) && Test(d, SFPSETCC_MOD1_LREG_NE0);
    } else if constexpr (is_integer<B>) {
        return Test(compared(a, b + 1), SFPSETCC_MOD1_LREG_GTE0);
    } else {
        return Test(compared(b, a), SFPSETCC_MOD1_LREG_LT0);
    }
}
template <class A, class B, If<are_operands<A, B>> = 0>
sfpi_inline auto operator<=(const A& a, const B& b) {
    return !(a > b);
}

}  // namespace impl_

// SFPI's hint that the difference of the compared values can't overflow. Comparisons here take that for granted.
template <class C, impl_::If<impl_::is_conditional<C>> = 0>
sfpi_inline C nearby(const C& condition) {
    return condition;
}

namespace impl_ {

template <class C, If<is_conditional<C>> = 0>
sfpi_inline C condition(const C& c) {
    return c;
}
template <class A, If<is_vector<A>> = 0>
sfpi_inline Test condition(const A& a) {
    return {a.get(), SFPSETCC_MOD1_LREG_NE0};
}

// The predicates that a v_if pushed; they are popped at its end.
class PredicateScope {
    unsigned depth = 0;

public:
    sfpi_inline PredicateScope() { push(); }
    PredicateScope(const PredicateScope&) = delete;
    sfpi_inline ~PredicateScope() {
        for (unsigned i = 0; i < depth; i++) {
            asm volatile("sfppopc");
        }
    }
    sfpi_inline void push() {
        depth++;
        asm volatile("sfppushc");
    }
    // Enables the lanes that were enabled before the branch and did not take it, and no others.
    sfpi_inline void invert() { asm volatile("sfpcompc"); }
};

}  // namespace impl_

}  // namespace sfpi

// The core executes every branch, for the lanes that take it: do not jump into or out of one.
#define v_if(x)                              \
    {                                        \
        sfpi::impl_::PredicateScope v_scope; \
        sfpi::impl_::condition(x).narrow();  \
        {
#define v_elseif(x)                         \
        }                                   \
        v_scope.invert();                   \
        v_scope.push();                     \
        sfpi::impl_::condition(x).narrow(); \
        {
#define v_else            \
        }                 \
        v_scope.invert(); \
        {
#define v_endif \
        }       \
    }
#define v_block \
    {           \
        sfpi::impl_::PredicateScope v_scope;
#define v_and(x) sfpi::impl_::condition(x).narrow()
#define v_endblock }
