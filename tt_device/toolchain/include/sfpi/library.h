// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// SFPI's functions on vectors.
#pragma once

namespace sfpi {

// The same bits as another type.
template <class T, class A, impl_::If<impl_::is_vector<T> && impl_::is_lanes<A>> = 0>
sfpi_inline T as(const A& a) {
    return impl_::to<T>(a);
}
template <class T, class A, impl_::If<impl_::is_vector<T> && impl_::is_lanes<A>> = 0>
sfpi_inline T reinterpret(const A& a) {
    return impl_::to<T>(a);
}

// ---- Fields of a float: sign (1 bit), exponent (8), mantissa (23)

enum class ExponentMode { Unbiased, Debias = Unbiased, Biased, NoDebias = Biased };
enum class MantissaMode { FractionOnly, WithUnitBit, ImplicitOne = WithUnitBit };

sfpi_inline vInt exexp(const vFloat& v, ExponentMode mode = ExponentMode::Unbiased) {
    return mode == ExponentMode::Biased ? vInt(impl_::sfpexexp<SFPEXEXP_MOD1_NODEBIAS>(v.get()))
                                        : vInt(impl_::sfpexexp<SFPEXEXP_MOD1_DEBIAS>(v.get()));
}
sfpi_inline vInt exexp_nodebias(const vFloat& v) { return exexp(v, ExponentMode::Biased); }

sfpi_inline vMag exman(const vFloat& v, MantissaMode mode = MantissaMode::FractionOnly) {
    return mode == MantissaMode::FractionOnly ? vMag(impl_::sfpexman<SFPEXMAN_MOD1_PAD9>(v.get()))
                                              : vMag(impl_::sfpexman<SFPEXMAN_MOD1_PAD8>(v.get()));
}
sfpi_inline vInt exman8(const vFloat& v) { return vInt(exman(v, MantissaMode::WithUnitBit).get()); }
sfpi_inline vInt exman9(const vFloat& v) { return vInt(exman(v).get()); }

template <class A, impl_::If<impl_::is_vector<A>> = 0>
sfpi_inline vUInt exsgn(const A& v) {
    return as<vUInt>(v) >> 31;
}

// v with the exponent field that the low 8 bits of `exponent` give (biased).
template <class E, impl_::If<impl_::is_operand<E>> = 0>
sfpi_inline vFloat setexp(const vFloat& v, const E& exponent) {
    if constexpr (impl_::is_integer<E>) {
        return impl_::sfpsetexp<1>(v.get(), impl_::immediate(int(exponent), 0, 255));
    } else {
        return impl_::sfpsetexp_onto<0>(impl_::to<vInt>(exponent).get(), v.get());
    }
}
sfpi_inline vFloat copyexp(const vFloat& v, const vFloat& from) {
    return impl_::sfpsetexp_onto<SFPSETEXP_MOD1_CPY>(from.get(), v.get());
}

// v times 2^n (n in -128..127), by its exponent field alone: it wraps, and 0.0 does not stay 0.0.
sfpi_inline vFloat addexp(const vFloat& v, int n) {
    return impl_::sfpdivp2<SFPSDIVP2_MOD1_ADD>(v.get(), impl_::immediate(n, -128, 127));
}

// v with the mantissa field of `mantissa`'s low 23 bits.
template <class M, impl_::If<impl_::is_operand<M>> = 0>
sfpi_inline vFloat setman(const vFloat& v, const M& mantissa) {
    if constexpr (impl_::is_integer<M>) {
        if (!__builtin_constant_p(mantissa) || mantissa != 0) {
            impl_::refuse_setman();
        }
        return impl_::sfpsetman<1>(v.get(), 0);
    } else {
        return impl_::sfpsetman_onto<0>(mantissa.get(), v.get());
    }
}
sfpi_inline vFloat copyman(const vFloat& v, const vFloat& from) {
    return impl_::sfpsetman_onto<0>(from.get(), v.get());
}

// v with the sign bit of `sign`: of a vector, or an immediate of 0 or 1.
template <class A, class S, impl_::If<impl_::is_lanes<A> && impl_::is_operand<S>> = 0>
sfpi_inline auto setsgn(const A& v, const S& sign) {
    using T = impl_::vector_t<A>;
    if constexpr (impl_::is_integer<S>) {
        return T(impl_::sfpsetsgn<1>(as<T>(v).get(), impl_::immediate(int(sign), 0, 1)));
    } else {
        return T(impl_::sfpsetsgn_onto<0>(as<impl_::vector_t<S>>(sign).get(), as<T>(v).get()));
    }
}
template <class A, class S, impl_::If<impl_::is_lanes<A> && impl_::is_lanes<S>> = 0>
sfpi_inline auto copysgn(const A& v, const S& from) {
    return setsgn(v, from);
}
// v with its sign bit set where the low bit of `sign` is.
template <class A, class S, impl_::If<impl_::is_lanes<A> && impl_::is_vector<S>> = 0>
sfpi_inline auto setsgn2(const A& v, const S& sign) {
    return setsgn(v, as<vUInt>(sign) << 31);
}

enum class LdexpMode { Correct, Fast };
sfpi_inline vFloat ldexp(const vFloat& v, int n, LdexpMode = LdexpMode::Correct) { return addexp(v, n); }
sfpi_inline vFloat ldexp(const vFloat& v, const vInt& n, LdexpMode mode = LdexpMode::Correct) {
    if (mode == LdexpMode::Fast) {
        return setexp(v, exexp(v, ExponentMode::Biased) + n);
    }
    return v * setexp(vFloat(0.0f), n + 127);
}

sfpi_inline vFloat abs(const vFloat& v) { return impl_::sfpabs<SFPABS_MOD1_FLOAT>(v.get()); }
sfpi_inline vMag abs(const vInt& v) { return vMag(impl_::sfpabs<SFPABS_MOD1_INT>(v.get())); }
sfpi_inline vMag abs(const vSMag& v) { return vMag(setsgn(v, 0).get()); }

sfpi_inline auto is_nan(const vFloat& v) { return exexp(v, ExponentMode::Biased) >= 255 && exman(v) != 0; }
sfpi_inline auto is_inf(const vFloat& v) { return exexp(v, ExponentMode::Biased) >= 255 && exman(v) == 0; }
sfpi_inline auto is_finite(const vFloat& v) { return exexp(v, ExponentMode::Biased) < 255; }
sfpi_inline auto is_normal(const vFloat& v) {
    vInt exponent = exexp(v, ExponentMode::Biased);
    return exponent < 255 && exponent != 0;
}
sfpi_inline auto is_subnormal(const vFloat& v) { return exexp(v, ExponentMode::Biased) == 0 && exman(v) != 0; }
sfpi_inline auto is_zero(const vFloat& v) { return (as<vUInt>(v) << 1) == 0; }
sfpi_inline auto is_neg(const vFloat& v) { return as<vInt>(v) < 0; }
sfpi_inline auto is_pos(const vFloat& v) { return as<vInt>(v) >= 0; }

// ---- Bits

enum class LZMode { All, IgnoreSign };
template <class A, impl_::If<impl_::is_vector<A>> = 0>
sfpi_inline vMag lz(const A& v, LZMode mode = LZMode::All) {  // leading zeros; 32 for 0
    return mode == LZMode::All ? vMag(impl_::sfplz<SFPLZ_MOD1_CC_NONE>(v.get()))
                               : vMag(impl_::sfplz<SFPLZ_MOD1_NOSGN_MASK>(v.get()));
}
template <class A, impl_::If<impl_::is_vector<A>> = 0>
sfpi_inline vInt lz_nosgn(const A& v) {
    return vInt(lz(v, LZMode::IgnoreSign).get());
}

// Shifts left by n, right by -n.
enum class ShiftMode {
    Logical,
#if __riscv_xtttensixbh
    Arithmetic,
#endif
};
template <class A, class B, impl_::If<impl_::is_vector<A> && impl_::is_operand<B>> = 0>
sfpi_inline A shft(const A& v, const B& n, ShiftMode mode = ShiftMode::Logical) {
#if __riscv_xtttensixbh
    if (mode == ShiftMode::Arithmetic) {
        if constexpr (impl_::is_integer<B>) {
            return A(impl_::shift_immediate<true>(v.get(), int(n)));
        } else {
            return A(impl_::shift<true>(v.get(), n.get()));
        }
    }
#endif
    (void)mode;
    if constexpr (impl_::is_integer<B>) {
        return A(impl_::shift_immediate<false>(v.get(), int(n)));
    } else {
        return A(impl_::shift<false>(v.get(), n.get()));
    }
}

// ---- Conversions

// Nearest is to nearest with ties away from zero. NearestStochastic is SFPI's default.
enum class RoundMode {
    NearestAway,
    Nearest = NearestAway,
    NearestEven = NearestAway,
    NearestStochastic,
    Stochastic = NearestStochastic,
    Zero,
};

namespace impl_ {

template <unsigned Mod>
sfpi_inline sfpu_t rounded(const vFloat& v, RoundMode mode) {
    if (mode == RoundMode::NearestAway) {
        return sfpstochrnd<Mod, SFPSTOCHRND_RND_EVEN>(v.get());
    }
    if (mode == RoundMode::NearestStochastic) {
        return sfpstochrnd<Mod, SFPSTOCHRND_RND_STOCH>(v.get());
    }
#if !__riscv_xtttensixbh
    refuse_rounding();
#endif
    return sfpstochrnd<Mod, SFPSTOCHRND_RND_ZERO>(v.get());
}

sfpi_inline vFloat smag_to_float(const vSMag& v, RoundMode mode) {
    if (mode == RoundMode::Zero) {
        refuse_rounding();
    }
    return mode == RoundMode::NearestAway ? vFloat(sfpcast<SFPCAST_MOD1_SM32_TO_FP32_RNE>(v.get()))
                                          : vFloat(sfpcast<SFPCAST_MOD1_SM32_TO_FP32_RNS>(v.get()));
}

sfpi_inline vInt smag_to_int(const vSMag& v) {
    vInt result = as<vInt>(v);
    v_if(result < 0) { result = -as<vInt>(setsgn(v, 0)); }
    v_endif;
    return result;
}

sfpi_inline vSMag int_to_smag(const vInt& v) {
#if __riscv_xtttensixbh
    return vSMag(sfpcast<SFPCAST_MOD1_INT32_TO_SM32>(v.get()));
#else
    vSMag result = as<vSMag>(v);
    v_if(v < 0) { result = setsgn(as<vSMag>(-v), 1); }
    v_endif;
    return result;
#endif
}

}  // namespace impl_

// Rounds a float to bfloat16, float16 or an integer of 8 or 16 bits (clamped), or makes an integer a float. Of a
// float, -0.0 and subnormals become 0.0, and NaN becomes infinity.
template <class T, class A, impl_::If<impl_::is_vector<T> && impl_::is_lanes<A>> = 0>
sfpi_inline T convert(const A& v, RoundMode mode = RoundMode::NearestStochastic) {
    if constexpr (!impl_::is_vector<A>) {
        return convert<T>(as<impl_::vector_t<A>>(v), mode);
    } else if constexpr (std::is_same_v<T, A>) {
        return v;
    } else if constexpr (std::is_base_of_v<vFloat, A>) {
        if constexpr (std::is_same_v<T, vFloat>) {
            return vFloat(v.get());
        } else if constexpr (std::is_same_v<T, vFloat16a>) {
            return T(impl_::rounded<SFPSTOCHRND_MOD1_FP32_TO_FP16A>(v, mode));
        } else if constexpr (std::is_same_v<T, vFloat16b>) {
            return T(impl_::rounded<SFPSTOCHRND_MOD1_FP32_TO_FP16B>(v, mode));
        } else if constexpr (std::is_same_v<T, vUInt8>) {
            return T(impl_::rounded<SFPSTOCHRND_MOD1_FP32_TO_UINT8>(v, mode));
        } else if constexpr (std::is_same_v<T, vSMag8>) {
            return T(impl_::rounded<SFPSTOCHRND_MOD1_FP32_TO_INT8>(v, mode));
        } else if constexpr (std::is_same_v<T, vUInt16>) {
            return T(impl_::rounded<SFPSTOCHRND_MOD1_FP32_TO_UINT16>(v, mode));
        } else {
            static_assert(std::is_same_v<T, vSMag16>, "a float does not convert to this type");
            return T(impl_::rounded<SFPSTOCHRND_MOD1_FP32_TO_INT16>(v, mode));
        }
    } else if constexpr (std::is_same_v<T, vInt>) {
        if constexpr (std::is_base_of_v<vSMag, A>) {
            return impl_::smag_to_int(v);
        } else {
            return as<vInt>(v);  // vMag: no sign
        }
    } else if constexpr (std::is_same_v<A, vInt>) {
        return convert<T>(impl_::int_to_smag(v), mode);
    } else if constexpr (std::is_base_of_v<vMag, A>) {
        return convert<T>(as<vSMag>(v), mode);
    } else {
        static_assert(std::is_base_of_v<vSMag, A> && std::is_base_of_v<vFloat, T>, "this conversion does not exist");
        return convert<T>(impl_::smag_to_float(vSMag(v.get()), mode), mode);
    }
}

// ---- Order

template <class A, impl_::If<impl_::is_vector<A>> = 0>
sfpi_inline void swap(A& a, A& b) {
    impl_::sfpu_t c = a.get(), d = b.get();
    impl_::sfpswap<SFPSWAP_MOD1_SWAP>(c, d);
    a = A(c);
    b = A(d);
}
template <class A, impl_::If<impl_::is_vector<A>> = 0>
sfpi_inline void vec_swap(A& a, A& b) {
    swap(a, b);
}

// The lesser and the greater, in the total order of sign and magnitude: -NaN < -inf < ... < -0 < +0 < ... < NaN.
template <class A, class B, impl_::If<impl_::is_lanes<A> && impl_::is_operand<B>> = 0>
sfpi_inline auto min_max(const A& a, const B& b, std::uint32_t mask = 0) {
    using T = impl_::vector_t<A>;
    static_assert(std::is_base_of_v<vFloat, T> || std::is_base_of_v<vSMag, T>, "SFPSWAP orders signs and magnitudes");
    if (mask != 0) {
        impl_::refuse_min_max_mask();
    }
    impl_::sfpu_t greater = as<T>(a).get();
    impl_::sfpu_t lesser = impl_::to<impl_::arithmetic_type_t<T>>(b).get();
    impl_::sfpswap<SFPSWAP_MOD1_VEC_MIN_MAX>(greater, lesser);
    return std::pair(T(lesser), T(greater));
}
template <class A, impl_::If<impl_::is_vector<A>> = 0>
sfpi_inline void vec_min_max(A& a, A& b) {
    auto ordered = min_max(a, b);
    a = ordered.first;
    b = ordered.second;
}
template <class A, class B, impl_::If<impl_::is_lanes<A> && impl_::is_operand<B>> = 0>
sfpi_inline auto min(const A& a, const B& b) {
    return min_max(a, b).first;
}
template <class A, class B, impl_::If<impl_::is_lanes<A> && impl_::is_operand<B>> = 0>
sfpi_inline auto max(const A& a, const B& b) {
    return min_max(a, b).second;
}
template <class A, class B, class C, impl_::If<impl_::is_lanes<A> && impl_::is_operand<B> && impl_::is_operand<C>> = 0>
sfpi_inline auto clamp(const A& v, const B& lower, const C& upper) {
    return min(max(v, lower), upper);
}
sfpi_inline vFloat symmetric_clamp(const vFloat& v, float bound) { return copysgn(min(abs(v), bound), v); }

// ---- Approximations

#if __riscv_xtttensixbh
enum class RecipMode { All, IfNegative };
sfpi_inline vFloat approx_recip(const vFloat& v, RecipMode mode = RecipMode::All) {  // off by 0.56 % at most
    if (mode != RecipMode::All) {
        impl_::refuse_recip_mode();
    }
    return impl_::sfparecip<SFPARECIP_MOD1_RECIP>(v.get());
}
sfpi_inline vFloat approx_exp(const vFloat& v) { return impl_::sfparecip<SFPARECIP_MOD1_EXP>(v.get()); }
#endif

// c + x * (d + x * (...)), lowest coefficient first
template <class C, class... Higher>
sfpi_inline vFloat polynomial(const vFloat& x, const C& c, const Higher&... higher) {
    if constexpr (sizeof...(Higher) == 0) {
        return vFloat(c);
    } else {
        return polynomial(x, higher...) * x + c;
    }
}

// The nearest integer, as a float and as an integer; |x| < 2^22.
struct FloatInt : std::pair<vFloat, vInt> {
    using std::pair<vFloat, vInt>::pair;
    sfpi_inline operator vFloat() const { return first; }
    sfpi_inline operator vInt() const { return second; }
};
sfpi_inline FloatInt round(const vFloat& x) {
    vFloat magic = 0x1.8p23f;  // at this magnitude a float's last bit is 1
    vFloat shifted = x + magic;
    return {shifted - magic, as<vInt>(shifted) - as<vInt>(magic)};
}

// ---- Movement between lanes. A vector is four rows of eight lanes.

// Transposes the 4x4 matrix of rows: row j of vector i and row i of vector j change places. No vector besides the
// four can be live across it.
template <class A, impl_::If<impl_::is_vector<A>> = 0>
sfpi_inline void subvec_transp(A& a, A& b, A& c, A& d) {
    impl_::sfpu_t rows[4] = {a.get(), b.get(), c.get(), d.get()};
    impl_::sfptransp(rows[0], rows[1], rows[2], rows[3]);
    // SFPTRANSP itself has obeyed the predicate.
    a.v = rows[0].v;
    b.v = rows[1].v;
    c.v = rows[2].v;
    d.v = rows[3].v;
}

// Rotates each row by one lane: lane i gets lane i - 1, lane 0 gets lane 7.
sfpi_inline impl_::sfpu_t subvec_shflror1(const impl_::vVal& v) {
    return impl_::sfpshft2<SFPSHFT2_MOD1_SUBVEC_SHFLROR1>(v.get());
}
// Shifts each row by one lane: lane i gets lane i - 1, lane 0 gets 0.
sfpi_inline impl_::sfpu_t subvec_shflshr1(const impl_::vVal& v) {
#if __riscv_xtttensixwh
    impl_::refuse_shflshr1();
#endif
    return impl_::sfpshft2<SFPSHFT2_MOD1_SUBVEC_SHFLSHR1>(v.get());
}

// ---- Refused

#define SFPI_UNMODELLED(Type, name)                                \
    namespace impl_ {                                              \
    SFPI_REFUSE(refuse_##name, "sfpi::" #name " is not modelled"); \
    }                                                              \
    template <class... Args>                                       \
    sfpi_inline Type name(Args...) {                               \
        impl_::refuse_##name();                                    \
        return Type();                                             \
    }
SFPI_UNMODELLED(vFloat, lut)
SFPI_UNMODELLED(vFloat, lut_sign)
SFPI_UNMODELLED(vFloat, lut2)
SFPI_UNMODELLED(vFloat, lut2_sign)
SFPI_UNMODELLED(vInt, rand)
SFPI_UNMODELLED(vMag, fractional_mul)
SFPI_UNMODELLED(vUInt, int32_to_uint8)
SFPI_UNMODELLED(vInt, int32_to_int8)
#undef SFPI_UNMODELLED

}  // namespace sfpi
