//! Integers of any length as text. Decimal digits are parsed by halves, much faster than in the
//! square of their number; hexadecimal digits are parsed in linear time, whatever their number.

use num_bigint::BigInt;
use num_bigint::BigUint;

/// More decimal digits are refused: otherwise a single line could take half a minute.
const MOST_DIGITS: usize = 1_000_000;
/// Up to this many digits are parsed directly.
const FEW_DIGITS: usize = 1000;

/// Parses an integer as written by `get` and `export`: an optional sign, then decimal digits, or
/// `0x` and hexadecimal digits.
pub(super) fn parse(text: &str) -> Result<BigInt, String> {
    let wrong = || "an $int is decimal digits, or 0x and hexadecimal ones".to_owned();
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = if let Some(digits) = digits.strip_prefix("0x") {
        let is_hex = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hex.then(|| BigUint::parse_bytes(digits.as_bytes(), 16)).flatten().ok_or_else(wrong)?
    } else {
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(wrong());
        }
        if digits.len() > MOST_DIGITS {
            return Err(format!(
                "this $int has {} decimal digits, and {MOST_DIGITS} are the most: write it as 0x and hexadecimal digits",
                digits.len()
            ));
        }
        decimal(digits.as_bytes(), &mut Vec::new()).ok_or_else(wrong)?
    };
    Ok(if is_negative { -BigInt::from(magnitude) } else { BigInt::from(magnitude) })
}

/// `powers` holds the powers of ten used so far, by exponent. At each level halves have at most two
/// different lengths, so there are few powers.
fn decimal(digits: &[u8], powers: &mut Vec<(usize, BigUint)>) -> Option<BigUint> {
    if digits.len() <= FEW_DIGITS {
        return BigUint::parse_bytes(digits, 10);
    }
    let low_len = digits.len() / 2;
    let (high, low) = digits.split_at_checked(digits.len() - low_len)?;
    let (high, low) = (decimal(high, powers)?, decimal(low, powers)?);
    Some(high * power(low_len, powers) + low)
}

fn power(exponent: usize, powers: &mut Vec<(usize, BigUint)>) -> BigUint {
    if let Some((_, known)) = powers.iter().find(|(known, _)| *known == exponent) {
        return known.clone();
    }
    let power = match exponent {
        0 => BigUint::from(1_u32),
        1 => BigUint::from(10_u32),
        _ => power(exponent / 2, powers) * power(exponent - exponent / 2, powers),
    };
    powers.push((exponent, power.clone()));
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_and_hexadecimal_digits_are_the_integer_they_name() {
        let mut random = fastrand::Rng::with_seed(1);
        for len in [1, 2, 19, 999, 1000, 1001, 2001, 5000, 9999] {
            let digits: String = (0..len).map(|_| char::from(b'0' + random.u8(0..10))).collect();
            for sign in ["", "-", "+"] {
                let text = format!("{sign}{digits}");
                let int: BigInt = text.parse().unwrap();
                assert_eq!(parse(&text), Ok(int.clone()), "{text}");
                assert_eq!(parse(&format!("{int:#x}")), Ok(int));
            }
        }
        for wrong in ["", "-", "0x", "-0x", "1_000", " 1", "1 ", "--1", "+-1", "0X1", "0xg", "١", "1.0"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&"9".repeat(MOST_DIGITS + 1)).unwrap_err().contains("hexadecimal"));
    }

    /// Parsing took time that grew with the square of the length: half a minute for a million
    /// digits, which `import` accepts from untrusted input. Here the same number of digits is
    /// compared with a power of ten.
    #[test]
    fn a_million_digits_are_parsed() {
        let text = format!("1{}", "0".repeat(MOST_DIGITS - 1));
        let int = parse(&text).unwrap();
        assert_eq!(int, BigInt::from(10).pow(u32::try_from(MOST_DIGITS - 1).unwrap()));
        let hex = format!("-0x1{}", "0".repeat(MOST_DIGITS));
        assert_eq!(parse(&hex).unwrap(), -(BigInt::from(1) << (4 * MOST_DIGITS)));
    }
}
