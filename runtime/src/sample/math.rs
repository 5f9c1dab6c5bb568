//! The two functions that sampling needs beside IEEE operations, the same bits on every platform.

/// `exp(x)` for `x <= 0`, the kernels' own polynomial.
pub(crate) fn exp(x: f32) -> f32 {
    quant_kernels::exp::exp(x)
}

/// Natural logarithm of a positive, finite, normal number, from additions, multiplications and divisions alone,
/// so that no platform's `libm` can change a draw. Error below 1e-15 relative to `max(1, |ln x|)`.
///
/// `x = m * 2^e` with `m` between `sqrt(1/2)` and `sqrt(2)`; `ln m = 2 atanh((m - 1) / (m + 1))` by its series.
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for k in (0..12).rev() {
        sum = sum * square + 1.0 / f64::from(2 * k + 1);
    }
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * s * sum
}

#[cfg(test)]
mod tests {
    use super::ln;

    #[test]
    fn ln_is_the_logarithm() {
        let mut x = 1e-300;
        while x < 1e300 {
            let (ours, theirs) = (ln(x), f64::ln(x));
            assert!(
                (ours - theirs).abs() <= 1e-15 * theirs.abs().max(1.0),
                "ln({x:e}) = {ours} not {theirs}"
            );
            x *= 1.37;
        }
        assert_eq!(ln(1.0), 0.0);
    }
}
