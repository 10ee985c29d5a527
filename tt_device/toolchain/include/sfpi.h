#pragma once
// Stand-in for SFPI (own code): SFPU LREGs are GCC "f" registers; each op is one asm word. Names follow the public SFPI API.
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#define sfpi_inline inline __attribute__((always_inline))
#define SFPI_I inline __attribute__((always_inline))
extern volatile uint32_t __instrn_buffer[];
namespace sfpi {
#define K_(n,v) inline constexpr unsigned n=v;
K_(SFP_LREG_COUNT,8) K_(SFP_DESTREG_STRIDE,2)
K_(SFPLOADI_MOD0_FLOATB,0) K_(SFPLOADI_MOD0_FLOATA,1) K_(SFPLOADI_MOD0_USHORT,2) K_(SFPLOADI_MOD0_SHORT,4) K_(SFPLOADI_MOD0_UPPER,8) K_(SFPLOADI_MOD0_LOWER,10)
K_(SFPLOAD_MOD0_FMT_SRCB,0) K_(SFPLOAD_MOD0_FMT_FP16B,2) K_(SFPSTORE_MOD0_FMT_SRCB,0) K_(SFPSTORE_MOD0_FMT_FP16B,2)
K_(SFPMAD_MOD1_OFFSET_NONE,0) K_(SFPEXMAN_MOD1_PAD8,0) K_(SFPEXMAN_MOD1_PAD9,1) K_(SFPEXEXP_MOD1_DEBIAS,0) K_(SFPEXEXP_MOD1_NODEBIAS,1) K_(SFPEXEXP_MOD1_SET_CC_SGN_EXP,2) K_(SFPEXEXP_MOD1_SET_CC_COMP_EXP,8)
K_(SFPABS_MOD1_INT,0) K_(SFPABS_MOD1_FLOAT,1) K_(SFPARECIP_MOD1_RECIP,0) K_(SFPARECIP_MOD1_COND_RECIP,1) K_(SFPARECIP_MOD1_EXP,2) K_(SFPMUL24_MOD1_LOWER,0) K_(SFPMUL24_MOD1_UPPER,1)
K_(SFPIADD_MOD1_ARG_LREG_DST,0) K_(SFPIADD_MOD1_ARG_IMM,1) K_(SFPIADD_MOD1_ARG_2SCOMP_LREG_DST,2) K_(SFPIADD_MOD1_CC_LT0,0) K_(SFPIADD_MOD1_CC_NONE,4) K_(SFPIADD_MOD1_CC_GTE0,8)
K_(SFPSETCC_MOD1_LREG_LT0,0) K_(SFPSETCC_MOD1_LREG_NE0,2) K_(SFPSETCC_MOD1_LREG_GTE0,4) K_(SFPSETCC_MOD1_LREG_EQ0,6) K_(SFPENCC_IMM12_BOTH,3) K_(SFPENCC_MOD1_EU_R1,0) K_(SFPENCC_MOD1_EI_RI,10)
K_(SFPCAST_MOD1_SM32_TO_FP32_RNE,0) K_(SFPCAST_MOD1_INT32_TO_FP32_RNE,0) K_(SFPSTOCHRND_RND_EVEN,0) K_(SFPSTOCHRND_RND_STOCH,1)
K_(SFPSTOCHRND_MOD1_FP32_TO_FP16A,0) K_(SFPSTOCHRND_MOD1_FP32_TO_FP16B,1) K_(SFPSTOCHRND_MOD1_FP32_TO_UINT8,2) K_(SFPSTOCHRND_MOD1_FP32_TO_INT8,3) K_(SFPSTOCHRND_MOD1_FP32_TO_UINT16,6) K_(SFPSTOCHRND_MOD1_FP32_TO_INT16,7)
K_(SFPSHFT2_MOD1_COPY4,0) K_(SFPSHFT2_MOD1_SUBVEC_CHAINED_COPY4,1) K_(SFPSHFT2_MOD1_SUBVEC_SHFLROR1_AND_COPY4,2) K_(SFPSHFT2_MOD1_SUBVEC_SHFLROR1,3) K_(SFPSHFT2_MOD1_SUBVEC_SHFLSHR1,4) K_(SFPSHFT2_MOD1_SHFT_LREG,5) K_(SFPSHFT2_MOD1_SHFT_IMM,6)
K_(SFPSWAP_MOD1_SWAP,0) K_(SFPSWAP_MOD1_VEC_MIN_MAX,1)
#undef K_
#if defined(ARCH_BLACKHOLE)
#define SFPI_AM "13"
constexpr unsigned ADDR_NOINC=7;
#define SFPI_NOP
#else
#define SFPI_AM "14"
constexpr unsigned ADDR_NOINC=3;
#define SFPI_NOP "\n.ttinsn 0x8f000000"
#endif
#define SFP3(op,a,b,c,d,mod) "sfp3 " op "," a "," b "," c "," d "," mod SFPI_NOP
#define LOADI32(dst,u) do{ asm volatile("sfpli L_%0,10,%1":"=f"(dst):"i"((u)&0xffff)); asm volatile("sfpli L_%0,8,%1":"+f"(dst):"i"(((u)>>16)&0xffff)); }while(0)
template<class R> R sfpi_standin_missing();   // never defined: using an unmodelled op is a link error
#define MISSING(R) return sfpi_standin_missing<R>()
enum class DataLayout{Default=0,FSrcB,F32,F16a,F16b,I32,U32,U16,SM32,SM16,M32,LO16,HI16};
enum class LRegs:uint8_t{LReg0,LReg1,LReg2,LReg3,LReg4,LReg5,LReg6,LReg7,LRegCount=8};
enum class ExponentMode{Unbiased,Biased}; enum class MantissaMode{FractionOnly,WithUnitBit,ImplicitOne=1}; enum class LdexpMode{Correct,Fast}; enum class LZMode{All,IgnoreSign};
enum class ShiftMode{Logical,Arithmetic}; enum class FractionalHalf{Low,High}; enum class RecipMode{All,IfNegative}; enum class LutSign{Update,Retain}; enum class RoundMode{Nearest,Stochastic,Zero,NearestStochastic=1,NearestEven=0,NearestAway=3};
struct sFloat16b{ uint16_t v; SFPI_I explicit constexpr sFloat16b(float f):v(uint16_t(__builtin_bit_cast(uint32_t,f)>>16)){} template<class T,std::enable_if_t<std::is_integral_v<T>>* =nullptr> SFPI_I explicit constexpr sFloat16b(T u):v(uint16_t(u)){} };
struct sFloat16a{ uint16_t v; template<class T,std::enable_if_t<std::is_integral_v<T>>* =nullptr> SFPI_I explicit constexpr sFloat16a(T u):v(uint16_t(u)){} };
struct Raw{ float v; }; namespace impl_{ using sfpu_t=Raw; }
struct Val{ float v;
  Val()=default; Val(const Val&)=default; SFPI_I explicit Val(Raw r):v(r.v){}
  SFPI_I void assign(const Val&o){ asm volatile("sfp2 0x7c,0,L_%1,L_%0,0":"+f"(v):"f"(o.v)); }
  SFPI_I Val& operator=(const Val&o){ assign(o); return *this; }
  SFPI_I Raw get()const{ return Raw{v}; }
  SFPI_I void li(uint32_t u){ if(__builtin_constant_p(u)){ LOADI32(v,u); } else {   // value known only at run time: push SFPLOADI words through the instruction buffer
    register float t asm("ft7"); asm volatile("":"=f"(t)); __instrn_buffer[0]=0x717a0000u|(u&0xffff); asm volatile("":"+f"(t)); __instrn_buffer[0]=0x71780000u|(u>>16); asm volatile("":"+f"(t)); v=t; } }
};
namespace impl_{ using vVal=Val; }
template<class T> concept V=std::is_base_of_v<Val,T>;
template<class T> concept S=std::is_arithmetic_v<T>;
template<class T> concept R=requires{ typename T::vtype; };
#define COMMON_(T,B) T()=default; T(const T&)=default; SFPI_I T& operator=(const T&o){ this->assign(o); return *this; } \
  template<class D> requires R<D> SFPI_I T(const D&d):B(d.template rd<T>()){}
struct vInt; struct vUInt; struct vSMag;
struct vFloat:Val{ COMMON_(vFloat,Val)
  SFPI_I vFloat(Raw r):Val(r){}
  SFPI_I vFloat(float f){ li(__builtin_bit_cast(uint32_t,f)); }
  SFPI_I vFloat(sFloat16b f){ asm volatile("sfpli L_%0,0,%1":"=f"(v):"i"(f.v)); }
  SFPI_I vFloat(sFloat16a f){ asm volatile("sfpli L_%0,1,%1":"=f"(v):"i"(f.v)); }
};
struct vInt:Val{ COMMON_(vInt,Val)
  SFPI_I vInt(Raw r):Val(r){} template<S T> SFPI_I vInt(T i){ li((uint32_t)i); } inline vInt(vUInt const&);
};
struct vUInt:Val{ COMMON_(vUInt,Val)
  SFPI_I vUInt(Raw r):Val(r){} template<S T> SFPI_I vUInt(T i){ li((uint32_t)i); } SFPI_I vUInt(vInt const&o):Val(o.get()){}
};
SFPI_I vInt::vInt(vUInt const&o):Val(o.get()){}
struct vSMag:Val{ COMMON_(vSMag,Val) SFPI_I explicit vSMag(Raw r):Val(r){} template<S T> SFPI_I explicit vSMag(T i){ li((uint32_t)i); } };
#define NARROW_(T,B) struct T:B{ COMMON_(T,B) SFPI_I explicit T(Raw r):B(r){} template<S U> SFPI_I explicit T(U u):B(u){} SFPI_I explicit T(const B&b):B(b){} };
NARROW_(vFloat16a,vFloat) NARROW_(vFloat16b,vFloat) NARROW_(vMag,vUInt) NARROW_(vUInt16,vMag) NARROW_(vUInt8,vUInt16) NARROW_(vSMag16,vSMag) NARROW_(vSMag8,vSMag16)
struct vLut8si:vUInt{ using vUInt::vUInt; SFPI_I vLut8si(float,float){ v=sfpi_standin_missing<float>(); } };
struct vLut16ss:vUInt{ using vUInt::vUInt; SFPI_I vLut16ss(float,float){ v=sfpi_standin_missing<float>(); } };
struct vLut16ii:vUInt{ using vUInt::vUInt; SFPI_I vLut16ii(float,float){ v=sfpi_standin_missing<float>(); } };
// ---- special registers (constant LREG numbers)
template<unsigned N,class T> struct CReg{ using vtype=T; static constexpr unsigned n=N;
  template<class U> SFPI_I Val rd()const{ Val q; asm volatile("sfp2 0x7c,0,%1,L_%0,2":"=f"(q.v):"i"(N)); return q; }
  SFPI_I operator T()const{ return T(rd<T>().get()); }
  SFPI_I void operator=(T t)const{ register float l0 asm("ft0"); asm volatile("sfp2 0x7c,0,L_%1,L_%0,2":"=f"(l0):"f"(t.v)); asm volatile(".ttinsn ((0x91<<24)|(%1<<4))"::"f"(l0),"i"(N)); }
  template<S U> SFPI_I void operator=(U f)const{ register float l0 asm("ft0"); uint32_t u; if constexpr(std::is_same_v<T,vFloat>) u=__builtin_bit_cast(uint32_t,float(f)); else u=uint32_t(f); LOADI32(l0,u); asm volatile(".ttinsn ((0x91<<24)|(%1<<4))"::"f"(l0),"i"(N)); }
};
inline constexpr CReg<12,vFloat> vConstFloatPrgm0{}; inline constexpr CReg<13,vFloat> vConstFloatPrgm1{}; inline constexpr CReg<14,vFloat> vConstFloatPrgm2{};
inline constexpr CReg<12,vInt> vConstIntPrgm0{}; inline constexpr CReg<13,vInt> vConstIntPrgm1{}; inline constexpr CReg<14,vInt> vConstIntPrgm2{}; inline constexpr CReg<15,vInt> vConstTileId{};
inline constexpr CReg<9,vFloat> vConst0{}; inline constexpr CReg<10,vFloat> vConst1{}; inline constexpr CReg<11,vFloat> vConstNeg1{}; inline constexpr CReg<8,vFloat> vConst0p8373{};
struct LReg{ using vtype=vUInt; template<class U> SFPI_I Val rd()const{ MISSING(Val); } template<V T> SFPI_I operator T()const{ MISSING(T); } template<V T> SFPI_I void operator=(T)const{ sfpi_standin_missing<int>(); } SFPI_I void in_use()const{ sfpi_standin_missing<int>(); } };
struct LRegFile{ SFPI_I LReg operator[](LRegs)const{ return {}; } }; inline constexpr LRegFile l_reg{};
struct lreg_pressure{ SFPI_I lreg_pressure(){} SFPI_I ~lreg_pressure(){} };
// ---- Dst
template<V T> constexpr unsigned fmt(DataLayout L){ switch(L){ case DataLayout::F32: return 3; case DataLayout::F16a: return 1; case DataLayout::F16b: return 2; case DataLayout::FSrcB: return 0; case DataLayout::I32: case DataLayout::U32: case DataLayout::M32: return 4; case DataLayout::U16: return 6; case DataLayout::SM32: return 12; case DataLayout::SM16: return 8; case DataLayout::LO16: return 9; case DataLayout::HI16: return 7; default: return std::is_base_of_v<vFloat,T>?0:std::is_base_of_v<vUInt16,T>?6:4; } }
template<DataLayout L> struct DRefL{ using vtype=vFloat; unsigned a; unsigned am=ADDR_NOINC;
  template<class T> SFPI_I Val rd()const{ Val q; asm volatile(".ttinsn ((0x70<<24)|(L_%0<<20)|(%3<<16)|(%1<<" SFPI_AM ")|%2)":"=f"(q.v):"i"(am),"i"(a*2),"i"(fmt<T>(L))); return q; }
  template<V T> SFPI_I void operator=(const T&x)const{ asm volatile(".ttinsn ((0x72<<24)|(L_%0<<20)|(%3<<16)|(%1<<" SFPI_AM ")|%2)"::"f"(x.v),"i"(am),"i"(a*2),"i"(fmt<T>(L))); }
  SFPI_I void operator=(float f)const{ *this=vFloat(f); }
  template<DataLayout M> SFPI_I void operator=(const DRefL<M>&d)const{ vFloat t=d; *this=t; }
  SFPI_I void operator=(const DRefL&d)const{ vFloat t=d; *this=t; }
  template<class T> requires (R<T>&&!requires(T t){ t.am; }) SFPI_I void operator=(const T&c)const{ typename T::vtype t=c; *this=t; }
  template<DataLayout M=DataLayout::Default> SFPI_I constexpr DRefL<M==DataLayout::Default?L:M> mode(int m=-1)const{ return {a,m>=0?unsigned(m):am}; }
};
using DRef=DRefL<DataLayout::Default>;
struct DReg{ SFPI_I DRef operator[](unsigned i)const{ return DRef{i}; } SFPI_I void operator++(int)const{ *this+=1; } SFPI_I void operator++()const{ *this+=1; } SFPI_I void operator+=(int n)const{ asm volatile(".ttinsn ((0x38<<24)|(%0<<14))"::"i"(2*n)); } };
inline constexpr DReg dst_reg{};
// ---- type algebra
template<class T> struct bt_{ using t=void; };
template<V T> struct bt_<T>{ using t=std::conditional_t<std::is_base_of_v<vFloat,T>,vFloat,std::conditional_t<std::is_base_of_v<vInt,T>,vInt,std::conditional_t<std::is_base_of_v<vSMag,T>,vSMag,vUInt>>>; };
template<R T> struct bt_<T>{ using t=typename T::vtype; };
template<class T> using bt=typename bt_<std::remove_cvref_t<T>>::t;
template<class A,class B> using ct=std::conditional_t<std::is_void_v<bt<A>>,bt<B>,std::conditional_t<std::is_void_v<bt<B>>,bt<A>,std::conditional_t<std::is_same_v<bt<A>,vFloat>||std::is_same_v<bt<B>,vFloat>,vFloat,std::conditional_t<std::is_same_v<bt<A>,bt<B>>,bt<A>,std::conditional_t<std::is_same_v<bt<A>,vInt>||std::is_same_v<bt<B>,vInt>,vInt,vUInt>>>>>;
template<class A> concept X=V<A>||R<A>;
template<class A> concept XS=X<A>||S<A>||std::is_same_v<A,sFloat16b>||std::is_same_v<A,sFloat16a>;
template<class A,class B> concept P=XS<A>&&XS<B>&&(X<A>||X<B>);
template<class C,class A> SFPI_I C to(const A&a){ if constexpr(R<A>) return C(a.template rd<C>().get()); else if constexpr(V<A>) return C(a.get()); else if constexpr(!S<A>) return C(a); else if constexpr(std::is_same_v<C,vFloat>) return C(float(a)); else return C(int32_t(a)); }
template<class A> constexpr int cn(){ if constexpr(requires{ A::n; }) return A::n; else return -1; }
// ---- raw ops
template<class A,class B> SFPI_I vFloat fadd(const A&a,const B&b){ vFloat q; if constexpr(cn<A>()>=0) asm volatile(SFP3("0x85","10","%2","L_%1","L_%0","0"):"=f"(q.v):"f"(to<vFloat>(b).v),"i"(cn<A>())); else if constexpr(cn<B>()>=0) asm volatile(SFP3("0x85","10","L_%1","%2","L_%0","0"):"=f"(q.v):"f"(to<vFloat>(a).v),"i"(cn<B>())); else asm volatile(SFP3("0x85","10","L_%1","L_%2","L_%0","0"):"=f"(q.v):"f"(to<vFloat>(a).v),"f"(to<vFloat>(b).v)); return q; }
template<class A,class B> SFPI_I vFloat fmul(const A&a,const B&b){ vFloat q; if constexpr(cn<A>()>=0) asm volatile(SFP3("0x86","%2","L_%1","9","L_%0","0"):"=f"(q.v):"f"(to<vFloat>(b).v),"i"(cn<A>())); else if constexpr(cn<B>()>=0) asm volatile(SFP3("0x86","L_%1","%2","9","L_%0","0"):"=f"(q.v):"f"(to<vFloat>(a).v),"i"(cn<B>())); else asm volatile(SFP3("0x86","L_%1","L_%2","9","L_%0","0"):"=f"(q.v):"f"(to<vFloat>(a).v),"f"(to<vFloat>(b).v)); return q; }
SFPI_I float fneg(float a){ float q; asm volatile("sfp2 0x7c,0,L_%1,L_%0,1":"=f"(q):"f"(a)); return q; }
SFPI_I Raw iadd(Raw a,Raw b){ Raw q=b; asm volatile("sfp2 0x79,0,L_%1,L_%0,4":"+f"(q.v):"f"(a.v)); return q; }
SFPI_I Raw iaddi(Raw a,int i){ Raw q; asm volatile("sfp2 0x79,%2,L_%1,L_%0,5":"=f"(q.v):"f"(a.v),"i"(i)); return q; }
SFPI_I Raw isub(Raw a,Raw b){ Raw q=b; asm volatile("sfp2 0x79,0,L_%1,L_%0,6":"+f"(q.v):"f"(a.v)); return q; }
template<unsigned N> SFPI_I Raw isubc(Raw b){ Raw q=b; asm volatile("sfp2 0x79,0,%1,L_%0,6":"+f"(q.v):"i"(N)); return q; }
SFPI_I Raw shi(Raw a,int n,int ar){ Raw q=a; asm volatile("sfp2 0x7a,%1,0,L_%0,%2":"+f"(q.v):"i"(n),"i"(1|ar)); return q; }
SFPI_I Raw shv(Raw a,Raw n,int ar){ Raw q=a; asm volatile("sfp2 0x7a,0,L_%1,L_%0,%2":"+f"(q.v):"f"(n.v),"i"(ar)); return q; }
#define LOGIC_(nm,op) SFPI_I Raw nm(Raw a,Raw b){ Raw q=a; asm volatile("sfp2 " op ",0,L_%1,L_%0,0":"+f"(q.v):"f"(b.v)); return q; }
LOGIC_(iand,"0x7e") LOGIC_(ior,"0x7f") LOGIC_(ixor,"0x8d")
SFPI_I Raw inot(Raw a){ Raw q; asm volatile("sfp2 0x80,0,L_%1,L_%0,0":"=f"(q.v):"f"(a.v)); return q; }
#define U2_(nm,op,mod) SFPI_I Raw nm(Raw a){ Raw q; asm volatile("sfp2 " op ",0,L_%1,L_%0," mod:"=f"(q.v):"f"(a.v)); return q; }
U2_(exexp0_,"0x77","0") U2_(exexp1_,"0x77","1") U2_(exman0_,"0x78","0") U2_(exman1_,"0x78","1") U2_(absf_,"0x7d","1") U2_(absi_,"0x7d","0") U2_(cast0_,"0x90","0") U2_(cast3_,"0x90","3") U2_(lz0_,"0x81","0") U2_(lz4_,"0x81","4") U2_(arecip_,"0x99","0") U2_(arexp_,"0x99","2")
// ---- operators
template<class A,class B> requires P<A,B> SFPI_I auto operator+(const A&a,const B&b){ using C=ct<A,B>; if constexpr(std::is_same_v<C,vFloat>) return fadd(a,b); else return C(iadd(to<C>(a).get(),to<C>(b).get())); }
template<class A,class B> requires P<A,B> SFPI_I auto operator-(const A&a,const B&b){ using C=ct<A,B>;
  if constexpr(std::is_same_v<C,vFloat>){ if constexpr(S<B>) return fadd(a,-float(b)); else { vFloat n; n.v=fneg(to<vFloat>(b).v); return fadd(a,n); } }
  else if constexpr(cn<A>()>=0) return C(isubc<unsigned(cn<A>())>(to<C>(b).get())); else return C(isub(to<C>(a).get(),to<C>(b).get())); }
template<class A,class B> requires P<A,B> SFPI_I vFloat operator*(const A&a,const B&b){ return fmul(a,b); }
template<X A> SFPI_I auto operator-(const A&a){ using C=bt<A>; if constexpr(std::is_same_v<C,vFloat>){ vFloat q; q.v=fneg(to<vFloat>(a).v); return q; } else return C(isubc<9>(to<C>(a).get())); }
template<V A> SFPI_I A operator+(const A&a){ return a; }
#define LOP_(o,f) template<class A,class B> requires P<A,B> SFPI_I auto operator o(const A&a,const B&b){ using C=ct<A,B>; using D=std::conditional_t<std::is_base_of_v<vMag,A>,vMag,C>; return D(f(to<C>(a).get(),to<C>(b).get())); }
LOP_(&,iand) LOP_(|,ior) LOP_(^,ixor)
template<V A> SFPI_I A operator~(const A&a){ return A(inot(a.get())); }
template<V A,class B> requires XS<B> SFPI_I A operator<<(const A&a,const B&n){ if constexpr(S<B>) return A(shi(a.get(),int(n),0)); else return A(shv(a.get(),to<vInt>(n).get(),0)); }
template<V A,class B> requires XS<B> SFPI_I A operator>>(const A&a,const B&n){ constexpr int ar=std::is_same_v<A,vInt>?2:0; if constexpr(S<B>) return A(shi(a.get(),-int(n),ar)); else return A(shv(a.get(),(vInt(0)-to<vInt>(n)).get(),ar)); }
#define AOP_(o) template<V A,class B> requires P<A,B> SFPI_I A& operator o##=(A&a,const B&b){ a=A((a o b).get()); return a; }
AOP_(+) AOP_(-) AOP_(*) AOP_(&) AOP_(|) AOP_(^) AOP_(<<) AOP_(>>)
template<V A> SFPI_I A operator++(A&a,int){ A t=a; a+=1; return t; } template<V A> SFPI_I A& operator++(A&a){ a+=1; return a; } template<V A> SFPI_I A operator--(A&a,int){ A t=a; a-=1; return t; } template<V A> SFPI_I A& operator--(A&a){ a-=1; return a; }
// ---- conditions (lane predicates)
struct CondB{}; template<class T> concept CD=std::is_base_of_v<CondB,T>;
struct Cond:CondB{ float v; unsigned m; SFPI_I Cond(float v_,unsigned m_):v(v_),m(m_){} SFPI_I void apply()const{ asm volatile("sfp2 0x7b,0,L_%0,0,%1"::"f"(v),"i"(m)); } SFPI_I Cond neg()const{ return {v,m^4}; } };
template<class A,class B> struct COr; template<class A,class B> struct CAnd:CondB{ A a; B b; SFPI_I CAnd(A x,B y):a(x),b(y){} SFPI_I void apply()const{ a.apply(); b.apply(); } SFPI_I auto neg()const{ return COr<decltype(a.neg()),decltype(b.neg())>(a.neg(),b.neg()); } };
template<class A,class B> struct COr:CondB{ A a; B b; SFPI_I COr(A x,B y):a(x),b(y){} SFPI_I auto neg()const{ return CAnd<decltype(a.neg()),decltype(b.neg())>(a.neg(),b.neg()); }
  SFPI_I void apply()const{ vInt r(1); asm volatile(".ttinsn 0x87000000"); neg().apply(); asm volatile("sfpli L_%0,2,0":"+f"(r.v)); asm volatile(".ttinsn 0x88000000"); asm volatile("sfp2 0x7b,0,L_%0,0,2"::"f"(r.v)); } };
template<CD A,CD B> SFPI_I CAnd<A,B> operator&&(A a,B b){ return {a,b}; } template<CD A,CD B> SFPI_I COr<A,B> operator||(A a,B b){ return {a,b}; } template<CD A> SFPI_I auto operator!(A a){ return a.neg(); }
struct vBool:CondB{ float v; vBool()=default; template<class C> requires(CD<C>&&!std::is_same_v<C,vBool>) SFPI_I vBool(const C&c){ vInt r(0); asm volatile(".ttinsn 0x87000000"); c.apply(); asm volatile("sfpli L_%0,2,1":"+f"(r.v)); asm volatile(".ttinsn 0x88000000"); v=r.v; } SFPI_I void apply()const{ asm volatile("sfp2 0x7b,0,L_%0,0,2"::"f"(v)); } SFPI_I Cond neg()const{ return {v,6}; } };
template<CD C> SFPI_I C mkc(const C&c){ return c; } template<V A> SFPI_I Cond mkc(const A&a){ return {a.v,2}; }
template<class A,class B> SFPI_I Cond cmp(const A&a,const B&b,unsigned m){ auto d=a-b; return Cond{d.v,m}; }
template<class A,class B> requires P<A,B> SFPI_I Cond operator==(const A&a,const B&b){ if constexpr(S<B>){ if(b==0) return {to<bt<A>>(a).v,6}; } return cmp(a,b,6); }
template<class A,class B> requires P<A,B> SFPI_I Cond operator!=(const A&a,const B&b){ if constexpr(S<B>){ if(b==0) return {to<bt<A>>(a).v,2}; } return cmp(a,b,2); }
template<class A,class B> requires P<A,B> SFPI_I Cond operator<(const A&a,const B&b){ if constexpr(S<B>){ if(b==0) return {to<bt<A>>(a).v,0}; } return cmp(a,b,0); }
template<class A,class B> requires P<A,B> SFPI_I Cond operator>=(const A&a,const B&b){ if constexpr(S<B>){ if(b==0) return {to<bt<A>>(a).v,4}; } return cmp(a,b,4); }
template<class A,class B> requires P<A,B> SFPI_I Cond operator>(const A&a,const B&b){ return cmp(b,a,0); }
template<class A,class B> requires P<A,B> SFPI_I Cond operator<=(const A&a,const B&b){ return cmp(b,a,4); }
struct CC{ unsigned n=0; SFPI_I void push(){ n++; asm volatile(".ttinsn 0x87000000"); } SFPI_I void comp(){ asm volatile(".ttinsn 0x8b000000"); } SFPI_I void pop(){ for(unsigned i=0;i<n;i++) asm volatile(".ttinsn 0x88000000"); } };
// ---- library
template<V T,class A> requires X<A> SFPI_I T as(const A&a){ if constexpr(R<A>) return T(a.template rd<T>().get()); else return T(a.get()); }
template<V T,V A> SFPI_I T reinterpret(const A&a){ return T(a.get()); }
SFPI_I vInt exexp(const vFloat&v,ExponentMode m=ExponentMode::Unbiased){ return vInt(m==ExponentMode::Biased?exexp1_(v.get()):exexp0_(v.get())); }
SFPI_I vInt exexp_nodebias(const vFloat&v){ return vInt(exexp1_(v.get())); }
SFPI_I vMag exman(const vFloat&v,MantissaMode m=MantissaMode::FractionOnly){ return vMag(m==MantissaMode::FractionOnly?exman1_(v.get()):exman0_(v.get())); }
SFPI_I vInt exman8(const vFloat&v){ return vInt(exman0_(v.get())); } SFPI_I vInt exman9(const vFloat&v){ return vInt(exman1_(v.get())); }
template<V A> SFPI_I vUInt exsgn(const A&a){ return vUInt(shi(a.get(),-31,0)); }
#define SETF_(nm,op) SFPI_I Raw nm##v_(Raw a,Raw f){ Raw q=f; asm volatile("sfp2 " op ",0,L_%1,L_%0,0":"+f"(q.v):"f"(a.v)); return q; } SFPI_I Raw nm##i_(Raw a,int i){ Raw q; asm volatile("sfp2 " op ",%2,L_%1,L_%0,1":"=f"(q.v):"f"(a.v),"i"(i)); return q; }
SETF_(sexp,"0x82") SETF_(sman,"0x83") SETF_(ssgn,"0x89")
template<class E> requires XS<E> SFPI_I vFloat setexp(const vFloat&v,const E&e){ if constexpr(S<E>) return vFloat(sexpi_(v.get(),int(e))); else return vFloat(sexpv_(v.get(),to<vInt>(e).get())); }
template<class E> requires XS<E> SFPI_I vFloat setman(const vFloat&v,const E&e){ if constexpr(S<E>) return vFloat(smani_(v.get(),int(e))); else return vFloat(smanv_(v.get(),to<vInt>(e).get())); }
SFPI_I vFloat copyman(const vFloat&v,const vFloat&m){ return vFloat(smanv_(v.get(),m.get())); } SFPI_I vFloat copyexp(const vFloat&v,const vFloat&m){ Raw q=m.get(); asm volatile("sfp2 0x82,0,L_%1,L_%0,2":"+f"(q.v):"f"(v.v)); return vFloat(q); }
template<V A,S E> SFPI_I A setsgn(const A&v,E e){ return A(ssgni_(v.get(),int(e))); } template<V A,V B> SFPI_I A setsgn(const A&v,const B&e){ return A(ssgnv_(v.get(),e.get())); }
template<V A,V B> SFPI_I A copysgn(const A&v,const B&e){ return A(ssgnv_(v.get(),e.get())); } template<V A,class B> SFPI_I A setsgn2(const A&v,const B&e){ return copysgn(v,e); }
SFPI_I vFloat addexp(const vFloat&a,int e){ vFloat q; asm volatile("sfp2 0x76,%2,L_%1,L_%0,1":"=f"(q.v):"f"(a.v),"i"(e)); return q; }
template<class...A> SFPI_I vFloat ldexp(A...){ MISSING(vFloat); }
SFPI_I vFloat abs(const vFloat&v){ return vFloat(absf_(v.get())); } SFPI_I vMag abs(const vInt&v){ return vMag(absi_(v.get())); } SFPI_I vMag abs(const vSMag&v){ return vMag(absf_(v.get())); }
template<V A> SFPI_I vMag lz(const A&a,LZMode m=LZMode::All){ return vMag(m==LZMode::All?lz0_(a.get()):lz4_(a.get())); } template<V A> SFPI_I vInt lz_nosgn(const A&a){ return vInt(lz4_(a.get())); }
template<V A,class B> SFPI_I A shft(const A&a,const B&n,ShiftMode m=ShiftMode::Logical){ int ar=m==ShiftMode::Arithmetic?2:0; if constexpr(S<B>) return A(shi(a.get(),int(n),ar)); else return A(shv(a.get(),n.get(),ar)); }
template<V T,V A> SFPI_I T convert(const A&a,RoundMode r=RoundMode::NearestStochastic){
  constexpr int m=std::is_same_v<T,vFloat16a>?0:std::is_same_v<T,vFloat16b>?1:std::is_same_v<T,vUInt8>?2:std::is_same_v<T,vSMag8>?3:std::is_same_v<T,vUInt16>?6:std::is_same_v<T,vSMag16>?7:-1;
  if constexpr(std::is_base_of_v<vFloat,A>&&m>=0){ Raw q; asm volatile(".ttinsn ((0x8e<<24)|(%3<<21)|(L_%1<<8)|(L_%0<<4)|%2)":"=f"(q.v):"f"(a.v),"i"(m),"i"(r==RoundMode::NearestStochastic?1:r==RoundMode::Zero?2:0)); return T(q); }
  else if constexpr(std::is_same_v<T,vFloat>&&!std::is_base_of_v<vFloat,A>) return T(cast0_(std::is_same_v<A,vInt>?cast3_(a.get()):a.get()));
  else if constexpr(std::is_same_v<T,vSMag>&&std::is_same_v<A,vInt>) return T(cast3_(a.get()));
  else MISSING(T); }
template<class...A> SFPI_I vFloat lut(A...){ MISSING(vFloat); } template<class...A> SFPI_I vFloat lut2(A...){ MISSING(vFloat); } template<class...A> SFPI_I vFloat lut_sign(A...){ MISSING(vFloat); } template<class...A> SFPI_I vFloat lut2_sign(A...){ MISSING(vFloat); }
#define PRED_(n) template<class A> SFPI_I Cond n(A){ MISSING(Cond); }
PRED_(is_nan) PRED_(is_finite) PRED_(is_inf) PRED_(is_normal) PRED_(is_subnormal) PRED_(is_zero) SFPI_I Cond is_neg(const vFloat&v){ return {v.v,0}; } SFPI_I Cond is_pos(const vFloat&v){ return {v.v,4}; }
template<class A,class B,class...C> SFPI_I vMag fractional_mul(A,B,C...){ MISSING(vMag); }
template<V A> SFPI_I void swap_(A&a,A&b,bool mm){ if(mm) asm volatile("sfp2 0x92,0,L_%1,L_%0,1\n.ttinsn 0x8f000000":"+f"(a.v),"+f"(b.v)); else asm volatile("sfp2 0x92,0,L_%1,L_%0,0\n.ttinsn 0x8f000000":"+f"(a.v),"+f"(b.v)); }
template<V A> SFPI_I void swap(A&a,A&b){ swap_(a,b,false); } template<V A> SFPI_I void vec_min_max(A&a,A&b){ swap_(b,a,true); } template<V A> SFPI_I void vec_swap(A&a,A&b){ swap_(a,b,false); }
template<V A,class B,class...C> SFPI_I std::pair<A,A> min_max(const A&a,const B&b,C...){ A x=a; A y=A(to<bt<A>>(b).get()); swap_(y,x,true); return {x,y}; }
template<V A,class B> SFPI_I A min(const A&a,const B&b){ return min_max(a,b).first; } template<V A,class B> SFPI_I A max(const A&a,const B&b){ return min_max(a,b).second; }
template<V A,class B,class C> SFPI_I A clamp(const A&a,const B&l,const C&h){ return min(max(a,l),h); } SFPI_I vFloat symmetric_clamp(const vFloat&a,float b){ return clamp(a,-b,b); }
struct FI:std::pair<vFloat,vInt>{ using std::pair<vFloat,vInt>::pair; operator vInt()const{ return second; } operator vFloat()const{ return first; } }; template<class...A> SFPI_I FI round(A...){ MISSING(FI); } template<CD C> SFPI_I C nearby(const C&c){ return c; }
SFPI_I vInt rand(){ MISSING(vInt); }
template<class...A> SFPI_I vFloat approx_recip(const vFloat&v,A...){ return vFloat(arecip_(v.get())); } SFPI_I vFloat approx_exp(const vFloat&v){ return vFloat(arexp_(v.get())); }
template<class C,class...D> SFPI_I vFloat polynomial(const vFloat&x,C c,D...d){ if constexpr(sizeof...(D)) return vFloat(polynomial(x,d...)*x+c); else return vFloat(c); }
// SFPTRANSP swaps rows of lanes among LREG0-3 and, whether wanted or not, among LREG4-7: those are declared clobbered.
template<V A> SFPI_I void subvec_transp(A&a,A&b,A&c,A&d){
  register float r0 asm("ft0")=a.v; register float r1 asm("ft1")=b.v; register float r2 asm("ft2")=c.v; register float r3 asm("ft3")=d.v;
  asm volatile(".ttinsn 0x8c000000" SFPI_NOP :"+f"(r0),"+f"(r1),"+f"(r2),"+f"(r3)::"ft4","ft5","ft6","ft7");
  a.v=r0; b.v=r1; c.v=r2; d.v=r3; }
SFPI_I Raw subvec_shflror1(const Val&a){ Raw q; asm volatile("sfp2 0x94,0,L_%1,L_%0,3\n.ttinsn 0x8f000000":"=f"(q.v):"f"(a.v)); return q; }
#if defined(ARCH_BLACKHOLE)
SFPI_I Raw subvec_shflshr1(const Val&a){ Raw q; asm volatile("sfp2 0x94,0,L_%1,L_%0,4\n.ttinsn 0x8f000000":"=f"(q.v):"f"(a.v)); return q; }
#else
template<V A> SFPI_I A subvec_shflshr1(const A&){ MISSING(A); }  // hardware fault on Wormhole
#endif
template<class...A> SFPI_I vUInt int32_to_uint8(A...){ MISSING(vUInt); } template<class...A> SFPI_I vInt int32_to_int8(A...){ MISSING(vInt); }
}
SFPI_I sfpi::Raw __builtin_rvtt_sfpmad(sfpi::Raw a,sfpi::Raw b,sfpi::Raw c,int){ sfpi::Raw q; asm volatile(SFP3("0x84","L_%1","L_%2","L_%3","L_%0","0"):"=f"(q.v):"f"(a.v),"f"(b.v),"f"(c.v)); return q; }
template<class...A> SFPI_I sfpi::Raw __builtin_rvtt_sfpgt(A...){ return sfpi::sfpi_standin_missing<sfpi::Raw>(); }
#define v_if(x) { sfpi::CC __cc; __cc.push(); sfpi::mkc(x).apply(); {
#define v_elseif(x) } __cc.comp(); __cc.push(); sfpi::mkc(x).apply(); {
#define v_else } __cc.comp(); {
#define v_endif } __cc.pop(); }
#define v_block { sfpi::CC __cc; __cc.push();
#define v_and(x) sfpi::mkc(x).apply()
#define v_endblock __cc.pop(); }
