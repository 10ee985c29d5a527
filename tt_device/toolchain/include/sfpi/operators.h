// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Arithmetic and logic on vectors, Dest, constant registers and scalars.
#pragma once

namespace sfpi::impl_ {

// a * b (or its negative), not multiplied yet: what is added to it makes it one SFPMAD, with one rounding.
//
// SFPI's compiler makes an SFPMAD of an SFPMUL and an SFPADD if nothing else reads the SFPMUL's result; if both addends
// are products, of the right one. Here the expression decides: a product that is assigned to a vector is multiplied and
// rounded there, where SFPI's compiler may still make an SFPMAD of it. So where bits matter, write the sum and its
// product in one expression. Negating a product, or subtracting one, takes an SFPMOV on Wormhole, which comes between
// multiplication and addition, so both round; Blackhole's instructions have bits for the signs.
//
// A and B are results of in(): an LREG or the number of a constant register.
template <class A, class B, bool Negative>
struct Product {
    using vtype = vFloat;
    A a;
    B b;

    template <class T>
    sfpi_inline vVal read() const {
        return vVal(get());
    }
    sfpi_inline sfpu_t get() const { return product<Negative>(a, b); }
    sfpi_inline auto operator-() const {
        if constexpr (signs_are_free) {
            return Product<A, B, !Negative>{a, b};
        } else {
            return vFloat(negated(get()));
        }
    }
};

template <class T>
constexpr bool is_product = false;
template <class A, class B, bool Negative>
constexpr bool is_product<Product<A, B, Negative>> = true;

// p + c, p - c and c - p for a product p
template <bool NegateProduct, bool NegateC, class A, class B, bool Negative, class C>
sfpi_inline vFloat contract(const Product<A, B, Negative>& p, C c) {
    return product_plus<Negative != NegateProduct, NegateC>(p.a, p.b, c);
}

template <class A>
constexpr bool is_integer = std::is_integral_v<A>;

// True for a value that is known at compile time and fits SFPIADD's immediate.
template <class T>
sfpi_inline bool fits_iadd(T value) {
    return __builtin_constant_p(value) && int(value) >= -2048 && int(value) <= 2047;
}

// The operators are in the namespace of the vectors' base class, where argument-dependent lookup finds them.

template <class A, class B, If<are_operands<A, B>> = 0>
sfpi_inline auto operator*(const A& a, const B& b) {
    static_assert(std::is_same_v<common_t<A, B>, vFloat>, "SFPI multiplies floats only");
    auto left = in<vFloat>(a);
    auto right = in<vFloat>(b);
    return Product<decltype(left), decltype(right), false>{left, right};
}

template <class A, class B, If<are_operands<A, B>> = 0>
sfpi_inline auto operator+(const A& a, const B& b) {
    using T = common_t<A, B>;
    if constexpr (std::is_same_v<T, vFloat>) {
        if constexpr (is_product<B>) {
            return contract<false, false>(b, in<T>(a));
        } else if constexpr (is_product<A>) {
            return contract<false, false>(a, in<T>(b));
        } else {
            return vFloat(sfpadd<0>(in<T>(a), in<T>(b)));
        }
    } else if constexpr (is_integer<A>) {
        return b + a;
    } else {
        if constexpr (is_integer<B>) {
            if (fits_iadd(b)) {
                return T(int_add_immediate(in<T>(a), int(b)));
            }
        }
        return T(int_add(to<T>(b).get(), in<T>(a)));
    }
}

template <class A, class B, If<are_operands<A, B>> = 0>
sfpi_inline auto operator-(const A& a, const B& b) {
    using T = common_t<A, B>;
    if constexpr (std::is_same_v<T, vFloat>) {
        if constexpr (is_product<B> && signs_are_free) {
            return contract<true, false>(b, in<T>(a));
        } else if constexpr (is_product<A>) {
            return contract<false, true>(a, in<T>(b));
        } else {
            return vFloat(difference(in<T>(a), in<T>(b)));
        }
    } else {
        if constexpr (is_integer<B>) {
            if (fits_iadd(-int(b))) {
                return T(int_add_immediate(in<T>(a), -int(b)));
            }
        }
        return T(int_sub(in<T>(a), to<T>(b).get()));
    }
}

template <class A, If<is_vector<A>> = 0>
sfpi_inline A operator+(const A& a) {
    return a;
}

template <class A, If<is_lanes<A> && !is_product<A>> = 0>
sfpi_inline auto operator-(const A& a) {
    using T = arithmetic_type_t<A>;
    if constexpr (std::is_same_v<T, vFloat>) {
        return vFloat(negated(in<T>(a)));
    } else {
        return T(int_sub(CREG_IDX_0, to<T>(a).get()));
    }
}

#define SFPI_LOGIC(symbol, op)                                                        \
    template <class A, class B, If<are_operands<A, B>> = 0>                           \
    sfpi_inline auto operator symbol(const A& a, const B& b) {                        \
        using T = common_t<A, B>;                                                     \
        static_assert(!std::is_same_v<T, vFloat>, "bitwise operators take integers"); \
        using Result = std::conditional_t<std::is_base_of_v<vMag, A>, vMag, T>;       \
        return Result(op##_onto<0>(to<T>(a).get(), to<T>(b).get()));                  \
    }
SFPI_LOGIC(&, sfpand)
SFPI_LOGIC(|, sfpor)
SFPI_LOGIC(^, sfpxor)
#undef SFPI_LOGIC

template <class A, If<is_vector<A>> = 0>
sfpi_inline A operator~(const A& a) {
    return A(sfpnot<0>(a.get()));
}

// Shifts by an amount in 0..31. A right shift keeps the sign of a vInt (Blackhole only).
template <class A, class B, If<is_vector<A> && is_operand<B>> = 0>
sfpi_inline A operator<<(const A& a, const B& n) {
    if constexpr (is_integer<B>) {
        if (__builtin_constant_p(n)) {
            return A(shift_immediate<false>(a.get(), int(n)));
        }
    }
    return A(shift<false>(a.get(), to<vInt>(n).get()));
}

template <class A, class B, If<is_vector<A> && is_operand<B>> = 0>
sfpi_inline A operator>>(const A& a, const B& n) {
    constexpr bool arithmetic = std::is_same_v<A, vInt>;
    if constexpr (is_integer<B>) {
        if (__builtin_constant_p(n)) {
            return A(shift_immediate<arithmetic>(a.get(), -int(n)));
        }
    }
    return A(shift<arithmetic>(a.get(), (-to<vInt>(n)).get()));
}

#define SFPI_ASSIGN(symbol)                                            \
    template <class A, class B, If<is_vector<A> && is_operand<B>> = 0> \
    sfpi_inline A& operator symbol##=(A& a, const B& b) {              \
        a = A((a symbol b).get());                                     \
        return a;                                                      \
    }
SFPI_ASSIGN(+)
SFPI_ASSIGN(-)
SFPI_ASSIGN(*)
SFPI_ASSIGN(&)
SFPI_ASSIGN(|)
SFPI_ASSIGN(^)
SFPI_ASSIGN(<<)
SFPI_ASSIGN(>>)
#undef SFPI_ASSIGN

template <class A, If<is_vector<A>> = 0>
sfpi_inline A& operator++(A& a) {
    return a += 1;
}
template <class A, If<is_vector<A>> = 0>
sfpi_inline A& operator--(A& a) {
    return a -= 1;
}
template <class A, If<is_vector<A>> = 0>
sfpi_inline A operator++(A& a, int) {
    A before = a;
    a += 1;
    return before;
}
template <class A, If<is_vector<A>> = 0>
sfpi_inline A operator--(A& a, int) {
    A before = a;
    a -= 1;
    return before;
}

}  // namespace sfpi::impl_

// SFPI's builtin for SFPMAD, which ttnn's kernels call where the order of operands matters.
sfpi_inline sfpi::impl_::sfpu_t __builtin_rvtt_sfpmad(sfpi::impl_::sfpu_t a, sfpi::impl_::sfpu_t b,
                                                      sfpi::impl_::sfpu_t c, unsigned mod) {
    if (!__builtin_constant_p(mod) || mod != sfpi::SFPMAD_MOD1_OFFSET_NONE) {
        sfpi::impl_::refuse_sfpmad_mod();
    }
    return sfpi::impl_::sfpmad<0>(a, b, c);
}

template <class... Args>
sfpi_inline sfpi::impl_::sfpu_t __builtin_rvtt_sfpgt(Args...) {
    sfpi::impl_::refuse_sfpgt();
    return {};
}
