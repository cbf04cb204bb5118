"""The numbers of ITU-T H.264 that reading a slice needs: scans, quantizer scales, CABAC states, CAVLC codes.

Sources, by table or clause of the Recommendation: 8-2 and 6.4.3 (scans), 7-2 to 7-4 (default scaling lists), 8.5.9
(scales), 9-12 to 9-33 (initial states, m and n of contexts 0..459), 9-43 (contexts of 8x8 blocks), 9-44 and 9-45 (range
and state transitions), 9-4 (coded block patterns), 9-5 and 9-7 to 9-10 (codes).
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONTEXTS = 460


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split()]


# Raster position of each coefficient in scan order.
ZIGZAG_4 = np.array(_numbers("0 1 4 8 5 2 3 6 9 12 13 10 7 11 14 15"), np.int64)


def _zigzag(side: int) -> list[int]:
    cells = [(y, x) for y in range(side) for x in range(side)]
    cells.sort(key=lambda yx: (sum(yx), yx[0] if sum(yx) % 2 else yx[1]))
    return [y * side + x for y, x in cells]


ZIGZAG_8 = np.array(_zigzag(8), np.int64)
# Raster index (y * 4 + x) of the 4x4 block that comes k-th in a macroblock.
BLOCK_RASTER = np.array(_numbers("0 1 4 5 2 3 6 7 8 9 12 13 10 11 14 15"), np.int64)

_NORM_4 = np.array([[10, 13, 16], [11, 14, 18], [13, 16, 20], [14, 18, 23], [16, 20, 25], [18, 23, 29]], np.int32)
_NORM_8 = np.array(
    [
        [20, 18, 32, 19, 25, 24],
        [22, 19, 35, 21, 28, 26],
        [26, 23, 42, 24, 33, 31],
        [28, 25, 45, 26, 35, 33],
        [32, 28, 51, 30, 40, 38],
        [36, 32, 58, 34, 46, 43],
    ],
    np.int32,
)


def _class_4(y: int, x: int) -> int:
    return 0 if y % 2 == 0 == x % 2 else 2 if y % 2 == 1 == x % 2 else 1


def _class_8(y: int, x: int) -> int:
    if y % 4 == 0 == x % 4:
        return 0
    if y % 2 == 1 == x % 2:
        return 1
    if y % 4 == 2 == x % 4:
        return 2
    if (y % 4 == 0 and x % 2 == 1) or (x % 4 == 0 and y % 2 == 1):
        return 3
    if (y % 4 == 0 and x % 4 == 2) or (x % 4 == 0 and y % 4 == 2):
        return 4
    return 5


# normAdjust of 8.5.9, [QP % 6, raster position].
NORM_4 = np.array([[_NORM_4[q, _class_4(*divmod(i, 4))] for i in range(16)] for q in range(6)], np.int32)
NORM_8 = np.array([[_NORM_8[q, _class_8(*divmod(i, 8))] for i in range(64)] for q in range(6)], np.int32)

DEFAULT_4_INTRA = _numbers("6 13 13 20 20 20 28 28 28 28 32 32 32 37 37 42")
DEFAULT_4_INTER = _numbers("10 14 14 20 20 20 24 24 24 24 27 27 27 30 30 34")
DEFAULT_8_INTRA = _numbers(
    "6 10 10 13 11 13 16 16 16 16 18 18 18 18 18 23 23 23 23 23 23 25 25 25 25 25 25 25 27 27 27 27 27 27 27 27 "
    "29 29 29 29 29 29 29 31 31 31 31 31 31 33 33 33 33 33 36 36 36 36 38 38 38 40 40 42"
)
DEFAULT_8_INTER = _numbers(
    "9 13 13 15 13 15 17 17 17 17 19 19 19 19 19 21 21 21 21 21 21 22 22 22 22 22 22 22 24 24 24 24 24 24 24 24 "
    "25 25 25 25 25 25 25 27 27 27 27 27 27 28 28 28 28 28 30 30 30 30 32 32 32 33 33 35"
)

# (m, n) of each context: I slices, then P and B slices with cabac_init_idc 0, 1, 2; int8 [4, 460, 2], base85.
_INITIAL = base64.b85decode(
    b"6!8K!14<O}0yYCm<bUaC`ZfPH2QvTw0000000000000000000000000000000000000000000000000000000000000000000000"
    b"0000000000000000000000000000000000000000000000000004V@J06zdf_frH`0Acw^4JiXY01E*(07dVA^JV~2`AX|+<$vLS"
    b"=zs2C<$vpP;(zaZ^mFif^>g$;{zUOq^Jx7>_+9o|;(z~2`eFH7?0@_?`%?K#>V5fL^;i8(`$zmg{6zFr`9AqU2t5Tj{z3sj06qRr"
    b"0Wt?P3L^k43nl?A04@bA9}xjF2QnNJ5Frje^K9{C^JVi}^j`K@@Kp9z`BU>(?Op*!07&~v5<B>2@nisB{7V8z^-KLn4=(dX06qXg"
    b"6(#XV2{{lp06q*z7yu6m2pJ6$4+#wu3MC8@1|1Y34;}<90XhIa2R#fX3oQ>P3n~pP5G@QT3Naoc5-JKe5i=1k09hLC7VjGG9_JkF"
    b"A?YRMA?YaOChsBjDDf%!CIKlC9{L*t8Wtt+Bm5@#CjBJ?CIu=0BM>JR4lo-f6+8??0%83}`YQV}{WktS06GCb{z(5y_gniz`y2fy"
    b"{wx44@Id%P_D=du_Ez*<@i+E7`ab+Y^hx+k`B3**?{4*B>{Rtn`bqps^H%d<^<nLG_)hyF{4oAC{XX+Y_D}Ry^IGy@008=3`c(K&"
    b"07Cyq06zXa{yY0i{XYCU_d@?q07nBv3M~0P4<rsK5E~2~0W1_G5+DUC0Wb<a5iSWp^l0^A@L>5^_*MB;_f_*)1Va5y{Y?5y3OfHx"
    b"|5N#6@?Qd908INz07mso0Ym^n@<{_e1U~;n^Ggdi1waf&4+aJk2M`Pn5)BOt4G#|x3>OU-4-^g>4lEHU5ib}K6%`p49~%}O6C(~X"
    b"3ONTq{!RQ+{ay)0^lc>FB;FwACE_gLBJLvbDDffrBl{r$CITT17b6Wi9sL>r79Jn@Bk>~rA_FA<A_X7|BLyN1Ckq}OA{reh6G9&q"
    b"A0HVq?|AHR?sD~2@m%s*=11{S@=yRo@<!-5=|t!<^-34>8uKXeG4d<}Ee0$iAvP0I{Y(EB0U`k_05<+N06hUf07Um(@@n&8@mlm+"
    b"?pXFo_fPUx_DS|e_C@<b_dxqP0y`D<81)?Z9RD2y9SI{89V8Az6!8K!14<O}0yYCm<bUaC`ZfPH2QwET7XlRk0SN#x+ja#x^G@|a"
    b"0X_^d{7Dfq5<m$n9RM0b5LyXn(tqq|0Ymdn^+5qX`d05>`aKCP{YCmw^<V}!2SfW-0$2b#{Y>^=1vUgl{ZRl|`9u3k{7U;!`A7je"
    b"04V@J06zdf_frH`0Acw^4JiXY04@AZ{b1#O<YMP#=|kjF>|XFw>Tc^>?q>5{<A3>F`&s#5^KAVt|3Uvb_g(!;_gwf_>3#(^20R8k"
    b"21Wlc07U#n_*ni``cD5#`Aq^g1v33a0Wt<E{80fv{6+vn0y+Ln3nK(T0X+*N5*Z8_4IK?6_Fef&{z(lk2{HL(2{i&W1vUOX05||R"
    b"^FRAM|2_mc`b7je4krXN4MYP#0X+#n2Qm;R1uO(K3o!dU|2qIX79j;J4lDmo06Ymr3mgI{11tbB04@S70y6+F1SbMM1}*?L12zIW"
    b"1V08d1~~^c1~djY3oQ;L2sQsw2RHpr4=xrT|5O<V9{C&t90VW$BL5x+9tI!@9}^lI8XhGS93l}$0Ye2l2}2Mb5+D*I79AKL7bX%b"
    b"6e$Zo2|Ecu|6cxC_iXx1{wx4305ttT{yY3e{7d*!?`HQ+0~i1*05AYI`aAhY^i%a$;&%Z${T=@#0VV<~`ZoYN06_gp_F4c&{2c`!"
    b"2Py$O{yP0g{ZaK{06GW-3Jwku4I2U|06P6f`cL>(008r9@M`u~>vHaH@?z?4>uT<2>uc$3=5Y34^k4g1_g(5<`&J1<{808)|3(Kq"
    b"2|5Km3^ETg5-|}r3MmIJ|1$?M2s8;P1}_3P4JisN1~LUT4KV~i20;Er{yPRn3M>g93@ZaQ4k8LB{WJ|I5g-RF2PO?N3OO1p4hsto"
    b"2@4Vn6$uyqAn_paBI_sVD&HyLF61Wk6&)?;HPbNWLDehmC-xo*5*id606Fqf`%CR%-F+JX8~`8u8wMf>9ts#1ArlrL8XpxY8Y~wt"
    b"5J3({2s{Qq5kVCg7Ze&78z3AP92gfU7$6)S7b+7u7Bv<<3swv$3o{No{7?Bu`$hLg_(JwX?Md`S@J8`N>^|*A@IvZA>^}+q8uuah"
    b"C;2J<EdwzLEgK{|`a=05`6~D=`!Mu4`aJtS_(J$h`&If;_D%Uw?@;bZ{7Uvy_eb|b|2_CZ@<ISR0y`D+A@V2rF8(tDJO(`xHzF!N"
    b"6!8K!14<O}0yYCm<bUaC`ZfPH2QwBKA^;Eo{s{yr<8}f;`bYCm1vCjV{YDBl8X^-GC;&MEDI^+2(|_@0{7m{s^G^jd21WB)05k|I"
    b"{zdyz_Fw`#0!#f@{bT_+{Yv^(06YCr`BwX1|3d#w0Y?5-`$zyi04V@J06zdf_frH`0Acw^4JiXY4G#x10#Mn1?pyC*=26{Z=w|6*"
    b"<#*^~>u&C5+<yR2`&s#3{9FJh073Co-GBZ`^l0~6;eP`+2RH{e2tEBZ07Usp_gM31^IP{>@?7{#^jGO_=xO#&>~Qa6vVXdN&VSN>"
    b"{6hOq{73jm0z3aV`9}In_*vd}{YxMe9v0Mp05<zQ06PCX{XO_Y=T!1a`#}XX0yzLZ_eJ$a5;y!u06GUf2`Lg82_OY42`>OF05bwE"
    b"6DIsZ4<-yM2_gVl1T6|23Lhc$G}RIh8~`KgCg&mmC+;BhW}*N9IPoF;9SSA;Gvg=sG~PwVL%}TjAO|<&AOQdX8zdp;BH|?ECgdjN"
    b"BJLybBJv>kCHf-(9ts>18W|la080W$2u%(n5+4yG6&?{S6e<!e8yXNc2SN}y3rPw?_H^lR@kjYR05$tU^-cFs_f+;*-hb<5{U`f1"
    b"`91YZ@lEer=WFM0<a+f?_AK@^_Br=D@JRVZ{6+gp_f`Tz_aXrx3m*kE{x|+Z07>{+12hK&3J4Jh5EBC>|2_Lj|3>^y008TL>3r;N"
    b"=6>gV?`h?E<#q37=5^(C-+K06@?`j5?{DOC`dR)^{8IN-_)-5z1wa8q2{-^n0YwKz`9=Ce@J;?e0zLXe{Xhaa{XzXg06qyb|3dyp"
    b"{!9Nx_ec&r5G4RF5+e&G3@HjJ0x%3I4JiOS12PjR140rq6Z#VR4gebTAMhdPA?hXMC*msNFV-#GG2SWfAPGgeKfyx4O|~}KG~Fro"
    b"BmgM?9u6ED7bOfg3qd8{C)_C8CgLvND&i>UG2<rmDE21(F8d!89Ud7h3@{5Z8Z8zU7Zw{8Aru-M9vB-U5-J%d5;6=%6*dk>3sV^&"
    b"6)_by`&If;_D%Uw?@;bZ{7Uvy_eb|b|2_CZ@<ISR0y`1*AoD8sG5a+DKm$YyLK`nR`$qs6|0Mn@{xtVF`ak?Z{6qOt{Zai)`AGUs"
    b"^hokV{YLss`$GFZ06F|U_dEeM0y+`)AoD8sG5a+DKm$YyLK`nR6!8K!14<O}0yYCm<bUaC`ZfPH2QwWI82}Cd_A~uH<zpHU{8i{?"
    b"1vv&e?@10h6etu59RM}}B`OSI;D73M{!08+=w<~u`d#u^`YZ%D^;z*}>vR)26gmV{24Dd{`&IL51wRH${aXKJ12_Cn{!8>>`7!}K"
    b"04V@J06zdf_frH`0Acw^4JiXY2O{@a?0?*U?_2U;=Tzrb^jYs);eYZ>?q~B_+kXpC1xx}|1y1@m1U>Ro+kg8{^=S25;(q`^{!ai%"
    b"{9O7t14Q^o^J4r~^jP~+{Yd;n_(<?s_eK9Z1wsTl{73#r0y_Un{4D=P06zIM{4e?{{VDo22u$}*^-~En07Ls)0YmXf`%Cyx>r?AM"
    b"^B?Cx<6a3%5kL4!`y>7v4O;_2`9%m#_Cf<b{Y30h03HDc{TJ&>5JKsE5hX0{GT!Qc1SbG02O<j{2p<L|2Py+72q6tC4I~6F12+OX"
    b"20REX3oH&Q2QUOU1T+mL2{98o3NQ>U07Vob2tOn4A?F<Z7z!HzBJwoUC+HIq9~mSa7$G7L9uyWy6e1HJ8!QtL4<rvH6&x8A9uyx8"
    b"8xR;O09_6^4>=kp=zr*Q>QeVU05t$R@>TO$^Ir8_<A3X9@;UTF^+)zi>s9br>1gp{+kf^__%QfA_(J(c@=Nwl_fzy-?ri)|>P7HN"
    b"{yG6V^G^3u{895`^HKUH^FI1I{yXqV_Du6u_fz&)008QL=YQvT<$vvR>2>FJ=5^?C<aXhB+kEz3@n-g8^J>n2`&<z@`&RQ_^jrQ-"
    b"07w5x1VH&w1waou0Yd;p_Co<g08Iiw07Uyv2R8*f0znQo4=e>d0!IE!?p6#&1wiyh3pWKg07U{p`bq^h2R8al^-}&#{!JMw5%UoD"
    b"5%e4DCE_XAD%UX4C*UsFG|ev8G}$ZdAPYUoIMP1OQN1nfBmNu@A^|4>9uX8K5-krl08b?FCGsWjAORu|9S;~8A{HMIBN87RAt@vr"
    b"8!r_;5+4&9Bp4VM8xR;C9~~Ac7Ag=t4>S%u15WUJ6*U$(89fyt6EYD!{Z9Bw_el0g?o0GX^*{SY?@RJX@I&}D@;mo5^+XB&9`+yn"
    b"A^#x<9}FcIA0`w)_ec39_$>7?_BixA_&@hU`b73m{Z9Bw_el0g?o0GX^*{SY?@RJX@I&}D@;mo5^+XB&9`+ynA^#x<9}FcIA0`w)"
)


@functools.cache
def initial_states() -> NDArray[np.uint8]:
    """State of each context at a slice's start, 2 * pStateIdx + valMPS: uint8 [4, 52, 460] by table and slice QP."""
    slope, offset = np.frombuffer(_INITIAL, np.int8).reshape(4, 1, CONTEXTS, 2).astype(np.int32).transpose(3, 0, 1, 2)
    qp = np.arange(52, dtype=np.int32).reshape(1, 52, 1)
    state = np.clip(((slope * qp) >> 4) + offset, 1, 126)
    return np.where(state <= 63, 2 * (63 - state), 2 * (state - 64) + 1).astype(np.uint8)


RANGE_LPS = np.array(
    _numbers("""
    128 176 208 240 128 167 197 227 128 158 187 216 123 150 178 205 116 142 169 195 111 135 160 185
    105 128 152 175 100 122 144 166 95 116 137 158 90 110 130 150 85 104 123 142 81 99 117 135
    77 94 111 128 73 89 105 122 69 85 100 116 66 80 95 110 62 76 90 104 59 72 86 99
    56 69 81 94 53 65 77 89 51 62 73 85 48 59 69 80 46 56 66 76 43 53 63 72
    41 50 59 69 39 48 56 65 37 45 54 62 35 43 51 59 33 41 48 56 32 39 46 53
    30 37 43 50 29 35 41 48 27 33 39 45 26 31 37 43 24 30 35 41 23 28 33 39
    22 27 32 37 21 26 30 35 20 24 29 33 19 23 27 31 18 22 26 30 17 21 25 28
    16 20 23 27 15 19 22 25 14 18 21 24 14 17 20 23 13 16 19 22 12 15 18 21
    12 14 17 20 11 14 16 19 11 13 15 18 10 12 15 17 10 12 14 16 9 11 13 15
    9 11 12 14 8 10 12 14 8 9 11 13 7 9 11 12 7 9 10 12 7 8 10 11
    6 8 9 11 6 7 9 10 6 7 8 9 2 2 2 2
"""),
    np.int64,
)
_NEXT_LPS = _numbers("""
    0 0 1 2 2 4 4 5 6 7 8 9 9 11 11 12 13 13 15 15 16 16 18 18 19 19 21 21 22 22 23 24 24 25 26 26 27 27
    28 29 29 30 30 30 31 32 32 33 33 33 34 34 35 35 35 36 36 36 37 37 37 38 38 63
""")
# Following state after the more and the less probable symbol, by 2 * pStateIdx + valMPS.
NEXT_MPS = np.array([2 * min(s // 2 + 1, 62) + s % 2 if s < 126 else s for s in range(128)], np.int64)
NEXT_LPS = np.array([2 * _NEXT_LPS[s // 2] + (1 - s % 2 if s < 2 else s % 2) for s in range(128)], np.int64)

# Context increments of significant_coeff_flag and last_significant_coeff_flag in 8x8 blocks of frames.
SIGNIFICANT_8 = np.array(
    _numbers(
        "0 1 2 3 4 5 5 4 4 3 3 4 4 4 5 5 4 4 4 4 3 3 6 7 7 7 8 9 10 9 8 7 7 6 11 12 13 11 6 7 8 9 14 10 9 8 6 11 12 13 "
        "11 6 9 14 10 9 11 12 13 11 14 10 12"
    ),
    np.int64,
)
LAST_8 = np.array([0, *[1] * 15, *[2] * 16, *[3] * 8, *[4] * 8, *[5] * 4, *[6] * 4, *[7] * 4, *[8] * 3], np.int64)

# coded_block_pattern by code number: [intra, inter], with chroma (48) and without (16).
PATTERNS = np.array(
    [
        _numbers(
            "47 31 15 0 23 27 29 30 7 11 13 14 39 43 45 46 16 3 5 10 12 19 21 26 28 35 37 42 44 1 2 4 8 17 18 20 24 6 "
            "9 22 25 32 33 34 36 40 38 41"
        ),
        _numbers(
            "0 16 1 2 4 8 32 3 5 10 12 15 47 7 11 13 14 6 9 31 35 37 42 44 33 34 36 40 39 43 45 46 17 18 20 24 19 21 "
            "26 28 23 27 29 30 22 25 38 41"
        ),
    ],
    np.int64,
)
PATTERNS_GRAY = np.array(
    [_numbers("15 0 7 11 13 14 3 5 10 12 1 2 4 8 6 9"), _numbers("0 1 2 4 8 3 5 10 12 15 7 11 13 14 6 9")], np.int64
)

# coeff_token codes by 4 * total + trailing ones ("-": none) for nC 0..1, 2..3, 4..7, 8 and more, and chroma DC.
_COEFF_TOKEN = (
    """
    1 - - - 000101 01 - - 00000111 000100 001 - 000000111 00000110 0000101 00011 0000000111 000000110
    00000101 000011 00000000111 0000000110 000000101 0000100 0000000001111 00000000110 0000000101
    00000100 0000000001011 0000000001110 00000000101 000000100 0000000001000 0000000001010 0000000001101
    0000000100 00000000001111 00000000001110 0000000001001 00000000100 00000000001011 00000000001010
    00000000001101 0000000001100 000000000001111 000000000001110 00000000001001 00000000001100
    000000000001011 000000000001010 000000000001101 00000000001000 0000000000001111 000000000000001
    000000000001001 000000000001100 0000000000001011 0000000000001110 0000000000001101 000000000001000
    0000000000000111 0000000000001010 0000000000001001 0000000000001100 0000000000000100
    0000000000000110 0000000000000101 0000000000001000
    """,
    """
    11 - - - 001011 10 - - 000111 00111 011 - 0000111 001010 001001 0101 00000111 000110 000101 0100
    00000100 0000110 0000101 00110 000000111 00000110 00000101 001000 00000001111 000000110 000000101
    000100 00000001011 00000001110 00000001101 0000100 000000001111 00000001010 00000001001 000000100
    000000001011 000000001110 000000001101 00000001100 000000001000 000000001010 000000001001
    00000001000 0000000001111 0000000001110 0000000001101 000000001100 0000000001011 0000000001010
    0000000001001 0000000001100 0000000000111 00000000001011 0000000000110 0000000001000 00000000001001
    00000000001000 00000000001010 0000000000001 00000000000111 00000000000110 00000000000101
    00000000000100
    """,
    """
    1111 - - - 001111 1110 - - 001011 01111 1101 - 001000 01100 01110 1100 0001111 01010 01011 1011
    0001011 01000 01001 1010 0001001 001110 001101 1001 0001000 001010 001001 1000 00001111 0001110
    0001101 01101 00001011 00001110 0001010 001100 000001111 00001010 00001101 0001100 000001011
    000001110 00001001 00001100 000001000 000001010 000001101 00001000 0000001101 000000111 000001001
    000001100 0000001001 0000001100 0000001011 0000001010 0000000101 0000001000 0000000111 0000000110
    0000000001 0000000100 0000000011 0000000010
    """,
    """
    000011 - - - 000000 000001 - - 000100 000101 000110 - 001000 001001 001010 001011 001100 001101
    001110 001111 010000 010001 010010 010011 010100 010101 010110 010111 011000 011001 011010 011011
    011100 011101 011110 011111 100000 100001 100010 100011 100100 100101 100110 100111 101000 101001
    101010 101011 101100 101101 101110 101111 110000 110001 110010 110011 110100 110101 110110 110111
    111000 111001 111010 111011 111100 111101 111110 111111
    """,
    """
    01 - - - 000111 1 - - 000100 000110 001 - 000011 0000011 0000010 000101 000010 00000011 00000010
    0000000
    """,
)
# total_zeros codes by number of zeros, a line for each total of coefficients from 1; the same for chroma DC; run_before
# codes by run, a line for each number of zeros left from 1 (the last: 7 and more).
_TOTAL_ZEROS = """
    1 011 010 0011 0010 00011 00010 000011 000010 0000011 0000010 00000011 00000010 000000011 000000010 000000001
    111 110 101 100 011 0101 0100 0011 0010 00011 00010 000011 000010 000001 000000
    0101 111 110 101 0100 0011 100 011 0010 00011 00010 000001 00001 000000
    00011 111 0101 0100 110 101 100 0011 011 0010 00010 00001 00000
    0101 0100 0011 111 110 101 100 011 0010 00001 0001 00000
    000001 00001 111 110 101 100 011 010 0001 001 000000
    000001 00001 101 100 011 11 010 0001 001 000000
    000001 0001 00001 011 11 10 010 001 000000
    000001 000000 0001 11 10 001 01 00001
    00001 00000 001 11 10 01 0001
    0000 0001 001 010 1 011
    0000 0001 01 1 001
    000 001 1 01
    00 01 1
    0 1
"""
_TOTAL_ZEROS_CHROMA = """
    1 01 001 000
    1 01 00
    1 0
"""
_RUN_BEFORE = """
    1 0
    1 01 00
    11 10 01 00
    11 10 01 001 000
    11 10 011 010 001 000
    11 000 001 011 010 101 100
    111 110 101 100 011 010 001 0001 00001 000001 0000001 00000001 000000001 0000000001 00000000001
"""


def _lookup(codes: Sequence[str], bits: int) -> NDArray[np.int16]:
    """By the next `bits` bits: symbol * 32 + length of its code, 0 where no code fits; int16 [2**bits]."""
    table = np.zeros(1 << bits, np.int16)
    for symbol, code in enumerate(codes):
        if code != "-":
            first = int(code, 2) << (bits - len(code))
            table[first : first + (1 << (bits - len(code)))] = symbol * 32 + len(code)
    return table


@functools.cache
def code_tables() -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]:
    """Lookups (see `_lookup`): coeff_token [5, 2**16], total_zeros [15 + 3, 2**9], run_before [7, 2**11]."""
    tokens = np.stack([_lookup(text.split(), 16) for text in _COEFF_TOKEN])
    lines = _TOTAL_ZEROS.strip().splitlines() + _TOTAL_ZEROS_CHROMA.strip().splitlines()
    zeros = np.stack([_lookup(line.split(), 9) for line in lines])
    runs = np.stack([_lookup(line.split(), 11) for line in _RUN_BEFORE.strip().splitlines()])
    return tokens, zeros, runs
