"""Check digits and rules of issue: what tells a value from something that only looks like one."""

from __future__ import annotations

import ipaddress
import re

_CARD_LENGTHS: tuple[tuple[re.Pattern[str], tuple[int, ...]], ...] = (
    (re.compile(r"4"), (16, 13, 19)),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"30[0-5]|3095|36|3[89]"), (14, 16, 19)),
    (re.compile(r"35|60|6[245]|81"), (16, 19, 18, 17)),
    (re.compile(r"50|5[6-9]|6"), (16, 19, 18, 17, 15, 14, 13)),
)
"""First digits, and how many digits such cards have, the usual number first (ISO/IEC 7812)."""

_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        "([A-Z]{2})([0-9]{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 "
        "EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 "
        "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 "
        "NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 "
        "SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30",
    )
}
"""Letters and digits of an IBAN by country (SWIFT, IBAN Registry)."""


def luhn(digits: str) -> bool:
    """Whether the check digit is a payment card's: ISO/IEC 7812-1, annex B."""
    numbers = [int(char) for char in digits]
    doubled = [number * 2 - 9 * (number > 4) for number in numbers[-2::-2]]
    return (sum(numbers[-1::-2]) + sum(doubled)) % 10 == 0


def card(value: str) -> str:
    """The payment card number at the beginning of digits in groups; empty where there is none."""
    digits = compacted(value)
    for first, lengths in _CARD_LENGTHS:
        if first.match(digits):
            for length in lengths:
                begun = _begun(value, length)
                if begun and luhn(digits[:length]) and len(set(digits[:length])) > 1:
                    return begun
            return ""
    return ""


def iban(value: str) -> str:
    """The IBAN at the beginning of letters and digits in groups: ISO 13616, ISO/IEC 7064 MOD 97-10."""
    compact = compacted(value)
    length = _IBAN_LENGTHS.get(compact[:2], 0)
    begun = _begun(value, length) if 0 < length <= len(compact) else ""
    return begun if begun and _mod97(compact[:length]) else ""


def _mod97(compact: str) -> bool:
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(char, 36)) for char in moved)) % 97 == 1


def _begun(value: str, length: int) -> str:
    """As much of the value as holds ``length`` letters and digits; empty where that ends within a group."""
    held = 0
    for place, char in enumerate(value):
        if held == length:
            return "" if char.isalnum() else value[:place]
        held += char.isalnum()
    return value if held == length else ""


def compacted(value: str) -> str:
    """Letters and digits alone, in upper case."""
    return "".join(char for char in value if char.isalnum()).upper()


def social(value: str) -> str:
    """The number, if it can have been issued (SSA: no 000, 666 or 9xx area, no 00 group, no 0000)."""
    area, group, serial = value.split("-")
    issued = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return value if issued else ""


def mixed(value: str) -> str:
    """The value, if it looks drawn at random: letters and digits, and enough different ones."""
    drawn = any(c.isdigit() for c in value) and any(c.isalpha() for c in value) and len(set(value)) >= 8
    return value if drawn else ""


def address(value: str) -> str:
    """The value, if it is an IP address of either version."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return ""
    return value
