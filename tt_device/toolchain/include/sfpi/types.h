// SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
// SPDX-License-Identifier: Apache-2.0

// Vector types, the registers that hold vectors outside the LREGs (Dest, the constant registers), and the implicit
// conversions among them.
#pragma once

namespace sfpi {

enum class DataLayout { Default = 0, FSrcB, F32, F16a, F16b, I32, U32, U16, SM32, SM16, M32, LO16, HI16 };

namespace impl_ {
// A template parameter that leaves the template out of overload resolution unless `Holds` does.
template <bool Holds>
using If = std::enable_if_t<Holds, int>;
}  // namespace impl_

// Scalars of 16 bits: a value for one SFPLOADI. From an integer they take the bit pattern.
struct sFloat16a {
    std::uint16_t bits;
    template <class T, impl_::If<std::is_integral_v<T>> = 0>
    sfpi_inline explicit constexpr sFloat16a(T pattern) : bits(std::uint16_t(pattern)) {}
};

struct sFloat16b {
    std::uint16_t bits;
    template <class T, impl_::If<std::is_integral_v<T>> = 0>
    sfpi_inline explicit constexpr sFloat16b(T pattern) : bits(std::uint16_t(pattern)) {}
    sfpi_inline explicit constexpr sFloat16b(float value)  // rounds towards zero
        : bits(std::uint16_t(__builtin_bit_cast(std::uint32_t, value) >> 16)) {}
};

namespace impl_ {

// A vector of no particular type. Construction copies all lanes; assignment writes the enabled lanes alone
// (registers.h). But the first assignment to a variable that was declared without a value copies all lanes: there is no
// old value to keep in the others, and keeping it would occupy an LREG from the declaration on. In straight-line code
// GCC knows `has_value` at compile time.
struct vVal {
    float v;
    bool has_value;

    sfpi_inline vVal() : has_value(false) {}
    vVal(const vVal&) = default;
    sfpi_inline explicit vVal(sfpu_t r) : v(r.v), has_value(true) {}
    sfpi_inline vVal& operator=(const vVal& other) {
        v = has_value ? sfpmov_onto<0>(get(), other.get()).v : other.v;
        has_value = true;
        return *this;
    }
    sfpi_inline sfpu_t get() const { return {v}; }
};

template <class T>
constexpr bool is_vector = std::is_base_of_v<vVal, T>;
// What a vector can be read from: Dest, a constant register, a Product (operators.h).
template <class T, class = void>
constexpr bool is_source = false;
template <class T>
constexpr bool is_source<T, std::void_t<typename T::vtype>> = true;
template <class T>
constexpr bool is_scalar = std::is_arithmetic_v<T> || std::is_same_v<T, sFloat16a> || std::is_same_v<T, sFloat16b>;

}  // namespace impl_

#define SFPI_VECTOR(Type, Base)                            \
    sfpi_inline Type() {}                                  \
    Type(const Type&) = default;                           \
    sfpi_inline Type& operator=(const Type& other) {       \
        impl_::vVal::operator=(other);                     \
        return *this;                                      \
    }                                                      \
    template <class S, impl_::If<impl_::is_source<S>> = 0> \
    sfpi_inline Type(const S& source) : Base(source.template read<Type>()) {}

struct vFloat : impl_::vVal {
    SFPI_VECTOR(vFloat, impl_::vVal)
    sfpi_inline vFloat(impl_::sfpu_t r) : vVal(r) {}
    sfpi_inline vFloat(float value) : vVal(impl_::load_immediate(__builtin_bit_cast(std::uint32_t, value))) {}
    sfpi_inline vFloat(sFloat16b value) : vVal(impl_::load_immediate(std::uint32_t(value.bits) << 16)) {}
    // float16's exponent field has 5 bits with bias 15. Infinity and NaN do not survive, as in SFPLOADI.
    sfpi_inline vFloat(sFloat16a value)
        : vVal(impl_::load_immediate((value.bits & 0x8000u) << 16 | ((value.bits & 0x7fffu) + (112u << 10)) << 13)) {}
};

struct vUInt;

struct vInt : impl_::vVal {  // two's complement
    SFPI_VECTOR(vInt, impl_::vVal)
    sfpi_inline vInt(impl_::sfpu_t r) : vVal(r) {}
    template <class T, impl_::If<std::is_integral_v<T>> = 0>
    sfpi_inline vInt(T value) : vVal(impl_::load_immediate(std::uint32_t(value))) {}
    sfpi_inline vInt(const vUInt& other);
};

struct vUInt : impl_::vVal {
    SFPI_VECTOR(vUInt, impl_::vVal)
    sfpi_inline vUInt(impl_::sfpu_t r) : vVal(r) {}
    template <class T, impl_::If<std::is_integral_v<T>> = 0>
    sfpi_inline vUInt(T value) : vVal(impl_::load_immediate(std::uint32_t(value))) {}
    sfpi_inline vUInt(const vInt& other) : vVal(other.get()) {}
};

sfpi_inline vInt::vInt(const vUInt& other) : vVal(other.get()) {}

struct vSMag : impl_::vVal {  // sign and magnitude
    SFPI_VECTOR(vSMag, impl_::vVal)
    sfpi_inline explicit vSMag(impl_::sfpu_t r) : vVal(r) {}
    template <class T, impl_::If<std::is_integral_v<T>> = 0>
    sfpi_inline explicit vSMag(T value) : vVal(impl_::load_immediate(std::uint32_t(value))) {}
};

// Narrower values, held in 32 bits.
#define SFPI_NARROW(Type, Base)                                     \
    struct Type : Base {                                            \
        SFPI_VECTOR(Type, Base)                                     \
        sfpi_inline explicit Type(impl_::sfpu_t r) : Base(r) {}     \
        sfpi_inline explicit Type(const Base& wide) : Base(wide) {} \
        template <class S, impl_::If<impl_::is_scalar<S>> = 0>      \
        sfpi_inline explicit Type(S value) : Base(value) {}         \
    };
SFPI_NARROW(vFloat16a, vFloat)
SFPI_NARROW(vFloat16b, vFloat)
SFPI_NARROW(vMag, vUInt)  // 31 bits
SFPI_NARROW(vUInt16, vMag)
SFPI_NARROW(vUInt8, vUInt16)
SFPI_NARROW(vSMag16, vSMag)
SFPI_NARROW(vSMag8, vSMag16)
#undef SFPI_NARROW
#undef SFPI_VECTOR

namespace impl_ {

// The type in which a vector, source or scalar takes part in arithmetic; void for a scalar.
template <class T, class = void>
struct arithmetic_type {
    using type = void;
};
template <class T>
struct arithmetic_type<T, std::enable_if_t<is_vector<T>>> {
    using type = std::conditional_t<
        std::is_base_of_v<vFloat, T>, vFloat,
        std::conditional_t<std::is_base_of_v<vInt, T>, vInt,
                           std::conditional_t<std::is_base_of_v<vSMag, T>, vSMag, vUInt>>>;
};
template <class T>
struct arithmetic_type<T, std::enable_if_t<is_source<T>>> {
    using type = typename T::vtype;
};
template <class T>
using arithmetic_type_t = typename arithmetic_type<std::remove_cv_t<std::remove_reference_t<T>>>::type;

// float wins over integers, signed over unsigned.
template <class A, class B>
struct common {
    using a = arithmetic_type_t<A>;
    using b = arithmetic_type_t<B>;
    using type = std::conditional_t<
        std::is_void_v<a>, b,
        std::conditional_t<
            std::is_void_v<b> || std::is_same_v<a, b>, a,
            std::conditional_t<std::is_same_v<a, vFloat> || std::is_same_v<b, vFloat>, vFloat,
                               std::conditional_t<std::is_same_v<a, vInt> || std::is_same_v<b, vInt>, vInt, vUInt>>>>;
};
template <class A, class B>
using common_t = typename common<A, B>::type;

template <class T>
constexpr bool is_lanes = is_vector<T> || is_source<T>;
template <class T>
constexpr bool is_operand = is_lanes<T> || is_scalar<T>;
template <class A, class B>
constexpr bool are_operands = is_operand<A> && is_operand<B> && (is_lanes<A> || is_lanes<B>);

// Any operand as a vector of type T.
template <class T, class A, If<is_vector<T> && is_operand<A>> = 0>
sfpi_inline T to(const A& a) {
    if constexpr (is_source<A>) {
        return T(a.template read<T>().get());
    } else if constexpr (is_vector<A>) {
        return T(a.get());
    } else if constexpr (std::is_same_v<T, vFloat> && std::is_arithmetic_v<A>) {
        return vFloat(float(a));
    } else {
        return T(a);
    }
}

// A vector is itself; anything read from elsewhere is a vector of its arithmetic type.
template <class A>
using vector_t = std::conditional_t<is_vector<A>, A, arithmetic_type_t<A>>;

// LREG 8-15. Reading one costs no instruction where it is an operand of arithmetic.
template <unsigned Number, class Type>
struct ConstantRegister {
    using vtype = Type;
    static constexpr unsigned number = Number;

    template <class T>
    sfpi_inline vVal read() const {
        return vVal(sfpmov<2>(Number));
    }
    sfpi_inline void operator=(Type value) const {
        static_assert(Number >= CREG_IDX_PRGM1 && Number <= CREG_IDX_PRGM3, "only LREG12-14 are programmable");
        sfpconfig<Number>(value.get());
    }
};

template <class T>
constexpr bool is_constant_register = false;
template <unsigned Number, class Type>
constexpr bool is_constant_register<ConstantRegister<Number, Type>> = true;

// An operand of arithmetic in type T: the number of its constant register if it is in one, else an LREG.
template <class T, class A, If<is_operand<A>> = 0>
sfpi_inline auto in(const A& a) {
    if constexpr (is_constant_register<A>) {
        return A::number;
    } else {
        return to<T>(a).get();
    }
}

// SFPLOAD's and SFPSTORE's mod0 for a vector of type T in a Dest datum of layout L.
constexpr unsigned NO_DEST_FORMAT = ~0u;

// The layout that SFPI takes for T where none is given.
template <class T>
constexpr DataLayout default_layout() {
    if constexpr (std::is_base_of_v<vFloat16a, T>) {
        return DataLayout::F16a;
    } else if constexpr (std::is_base_of_v<vFloat16b, T>) {
        return DataLayout::F16b;
    } else if constexpr (std::is_base_of_v<vFloat, T>) {
        return DataLayout::FSrcB;
    } else if constexpr (std::is_base_of_v<vUInt16, T>) {
        return DataLayout::U16;
    } else if constexpr (std::is_base_of_v<vUInt, T>) {
        return DataLayout::U32;
    } else if constexpr (std::is_base_of_v<vSMag16, T>) {
        return DataLayout::SM16;
    } else if constexpr (std::is_base_of_v<vSMag, T>) {
        return DataLayout::SM32;
    } else {
#if __riscv_xtttensixwh
        return DataLayout::SM32;  // Wormhole keeps integers in sign and magnitude
#else
        return DataLayout::I32;
#endif
    }
}

template <class T, DataLayout L>
constexpr unsigned dest_format() {
    constexpr DataLayout layout = L == DataLayout::Default ? default_layout<T>() : L;
    if constexpr (std::is_base_of_v<vFloat, T>) {
        switch (layout) {
            case DataLayout::FSrcB: return SFPLOAD_MOD0_FMT_SRCB;
            case DataLayout::F32: return SFPLOAD_MOD0_FMT_FP32;
            case DataLayout::F16a: return SFPLOAD_MOD0_FMT_FP16A;
            case DataLayout::F16b: return SFPLOAD_MOD0_FMT_FP16B;
            default: return NO_DEST_FORMAT;
        }
    } else if constexpr (std::is_base_of_v<vUInt, T>) {
        switch (layout) {
            case DataLayout::U32:
            case DataLayout::M32: return SFPLOAD_MOD0_FMT_INT32;
            case DataLayout::U16: return SFPLOAD_MOD0_FMT_UINT16;
            case DataLayout::LO16: return SFPLOAD_MOD0_FMT_LO16;
            case DataLayout::HI16: return SFPLOAD_MOD0_FMT_HI16;
            default: return NO_DEST_FORMAT;
        }
    } else if constexpr (std::is_base_of_v<vSMag, T>) {
        switch (layout) {
            case DataLayout::SM32: return SFPLOAD_MOD0_FMT_INT32;
            case DataLayout::SM16: return SFPLOAD_MOD0_FMT_INT16;
            default: return NO_DEST_FORMAT;
        }
    } else {
        switch (layout) {
            case DataLayout::I32: return SFPLOAD_MOD0_FMT_INT32;
#if __riscv_xtttensixwh
            case DataLayout::SM32: return SFPLOAD_MOD0_FMT_SM32;  // converts to two's complement and back
#endif
            default: return NO_DEST_FORMAT;
        }
    }
}

// 32 elements of Dest: the even or the odd columns of four rows.
template <DataLayout L>
struct DestRegister {
    using vtype = vFloat;
    unsigned row;
    unsigned addr_mode = SFPLOAD_ADDR_MODE_NOINC;

    template <class T>
    sfpi_inline vVal read() const {
        if constexpr (dest_format<T, L>() == NO_DEST_FORMAT) {
            refuse_dest_format();
            return {};
        } else {
            return vVal(sfpload<dest_format<T, L>()>(row, addr_mode));
        }
    }
    template <class T, If<is_vector<T>> = 0>
    sfpi_inline void operator=(const T& value) const {
        if constexpr (dest_format<T, L>() == NO_DEST_FORMAT) {
            refuse_dest_format();
        } else {
            sfpstore<dest_format<T, L>()>(value.get(), row, addr_mode);
        }
    }
    template <class S, If<is_source<S>> = 0>
    sfpi_inline void operator=(const S& source) const {
        *this = typename S::vtype(source);
    }
    sfpi_inline void operator=(const DestRegister& other) const { *this = vFloat(other); }
    sfpi_inline void operator=(float value) const { *this = vFloat(value); }
    template <DataLayout M = DataLayout::Default>
    sfpi_inline constexpr DestRegister<M == DataLayout::Default ? L : M> mode(int new_addr_mode = -1) const {
        return {row, new_addr_mode >= 0 ? unsigned(new_addr_mode) : addr_mode};
    }
};

struct DestFile {
    sfpi_inline DestRegister<DataLayout::Default> operator[](unsigned i) const { return {i * SFP_DESTREG_STRIDE}; }
    // Moves dst_reg[0] by 0..7, by way of the counter that SFPU instructions add to every Dest row.
    sfpi_inline void operator+=(int n) const {
        asm volatile("ttincrwc %0" : : "i"(immediate(n, 0, 7) * SFP_DESTREG_STRIDE));
    }
    sfpi_inline void operator++() const { *this += 1; }
    sfpi_inline void operator++(int) const { *this += 1; }
};

// A vector in a fixed LREG, as raw TTI_SFP* code wants it: refused.
struct FixedRegister {
    template <class T, If<is_vector<T>> = 0>
    sfpi_inline operator T() const {
        refuse_l_reg();
        return T();
    }
    template <class T, If<is_vector<T>> = 0>
    sfpi_inline void operator=(const T&) const {
        refuse_l_reg();
    }
    sfpi_inline void in_use() const { refuse_l_reg(); }
};

}  // namespace impl_

inline constexpr impl_::DestFile dst_reg{};

enum class LRegs : std::uint8_t { LReg0, LReg1, LReg2, LReg3, LReg4, LReg5, LReg6, LReg7, LRegCount };
struct LRegFile {
    sfpi_inline impl_::FixedRegister operator[](LRegs) const { return {}; }
};
inline constexpr LRegFile l_reg{};

// A hint to SFPI's allocator that registers are scarce in this scope.
struct lreg_pressure {
    sfpi_inline lreg_pressure() {}
    sfpi_inline ~lreg_pressure() {}
};

// Tables for lut(): declared for ttnn's headers, refused when made.
#define SFPI_LUT_TABLE(Type)                                                                   \
    struct Type : vUInt {                                                                      \
        using vUInt::vUInt;                                                                    \
        sfpi_inline Type(float, float) : vUInt(impl_::sfpu_t{}) { impl_::refuse_lut_table(); } \
    };
SFPI_LUT_TABLE(vLut8si)
SFPI_LUT_TABLE(vLut16ss)
SFPI_LUT_TABLE(vLut16ii)
#undef SFPI_LUT_TABLE

[[deprecated("write 0.8373f")]] inline constexpr impl_::ConstantRegister<CREG_IDX_0P837300003, vFloat> vConst0p8373{};
[[deprecated("write 0.0f")]] inline constexpr impl_::ConstantRegister<CREG_IDX_0, vFloat> vConst0{};
[[deprecated("write 1.0f")]] inline constexpr impl_::ConstantRegister<CREG_IDX_1, vFloat> vConst1{};
[[deprecated("write -1.0f")]] inline constexpr impl_::ConstantRegister<CREG_IDX_NEG_1, vFloat> vConstNeg1{};
inline constexpr impl_::ConstantRegister<CREG_IDX_PRGM1, vFloat> vConstFloatPrgm0{};
inline constexpr impl_::ConstantRegister<CREG_IDX_PRGM2, vFloat> vConstFloatPrgm1{};
inline constexpr impl_::ConstantRegister<CREG_IDX_PRGM3, vFloat> vConstFloatPrgm2{};
inline constexpr impl_::ConstantRegister<CREG_IDX_PRGM1, vInt> vConstIntPrgm0{};
inline constexpr impl_::ConstantRegister<CREG_IDX_PRGM2, vInt> vConstIntPrgm1{};
inline constexpr impl_::ConstantRegister<CREG_IDX_PRGM3, vInt> vConstIntPrgm2{};
inline constexpr impl_::ConstantRegister<CREG_IDX_TILEID, vInt> vConstTileId{};  // lane i holds 2 * i

}  // namespace sfpi
