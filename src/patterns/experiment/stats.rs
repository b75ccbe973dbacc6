//! What integer counts say: intervals, tests and whether the sample itself can be trusted.
//!
//! Every function is total: where a question has no answer (no exposures, no variance) it is `None`. More conversions
//! than exposures, which counters that lag behind each other can show, count as all converted. The normal distribution
//! is used throughout, so read nothing into fewer than some tens of conversions. `libm` gives the same results on every
//! target; against exact arithmetic the error is below 10^-9 up to a million exposures.

/// The two-sided 95 % quantile of the standard normal distribution.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// Below this a sample ratio mismatch is taken for real and no verdict should be given: the usual practice.
/// Source: Fabijan et al., "Diagnosing Sample Ratio Mismatch in Online Controlled Experiments", KDD 2019, §3.
pub const SRM_ALPHA: f64 = 0.001;

/// The sample size around which the always-valid test is tightest.
pub const SEQUENTIAL_TUNING: f64 = 5_000.0;

/// How strongly the anytime-valid ratio test believes in the configured weights before it sees data.
pub const SRM_CONCENTRATION: f64 = 10_000.0;

/// What was counted for one variant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arm {
    /// Users who saw the variant.
    pub exposures: u64,
    /// Those of them who did what was measured.
    pub conversions: u64,
}

/// Two ends, lower first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// An estimate with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate itself.
    pub value: f64,
    /// Its interval; none where nothing varies, which says nothing of how sure the estimate is.
    pub interval: Option<Interval>,
}

/// A test statistic and the probability of one at least as extreme if nothing is going on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TestResult {
    /// z or chi-square.
    pub statistic: f64,
    /// From 0 to 1.
    pub p_value: f64,
}

/// An always-valid p-value and interval: right at every look, however often one looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sequential {
    /// From 0 to 1.
    pub p_value: f64,
    /// The 95 % confidence sequence of the uplift at this sample size.
    pub interval: Interval,
}

#[allow(clippy::cast_precision_loss, reason = "counts above 2^53 do not occur")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

impl Arm {
    fn exposed(self) -> f64 {
        to_f64(self.exposures)
    }

    fn converted(self) -> f64 {
        to_f64(self.conversions.min(self.exposures))
    }

    /// Conversions per exposure.
    pub fn rate(self) -> Option<f64> {
        (self.exposures > 0).then(|| self.converted() / self.exposed())
    }

    /// The Wilson score interval of the rate at 95 %; all of 0 to 1 without exposures.
    /// Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
    pub fn wilson_interval(self) -> Interval {
        let Some(rate) = self.rate() else { return Interval { low: 0.0, high: 1.0 } };
        let n = self.exposed();
        let z2 = Z_95 * Z_95;
        let scale = 1.0 + z2 / n;
        let middle = (rate + z2 / (2.0 * n)) / scale;
        let half = Z_95 * (rate * (1.0 - rate) / n + z2 / (4.0 * n * n)).sqrt() / scale;
        Interval { low: (middle - half).max(0.0), high: (middle + half).min(1.0) }
    }
}

/// Relative difference of the rates and its variance by the delta method; `None` where control has no conversions.
/// Source: Deng et al., "Applying the Delta Method in Metric Analytics", KDD 2018, §3.1.
fn relative_difference(control: Arm, treatment: Arm) -> Option<(f64, f64)> {
    let (a, b) = (control.rate()?, treatment.rate()?);
    if a == 0.0 {
        return None;
    }
    let variance_of_mean = |arm: Arm, rate: f64| rate * (1.0 - rate) / arm.exposed();
    let variance = variance_of_mean(treatment, b) / (a * a) + variance_of_mean(control, a) * b * b / (a * a * a * a);
    Some((b / a - 1.0, variance))
}

/// The interval of an uplift, which is never below -1: less than no conversions cannot be.
fn around(uplift: f64, half: f64) -> Interval {
    Interval { low: (uplift - half).max(-1.0), high: uplift + half }
}

/// How much better treatment converts, relative to control (0.1 is 10 % better), with its 95 % interval.
pub fn uplift(control: Arm, treatment: Arm) -> Option<Estimate> {
    let (value, variance) = relative_difference(control, treatment)?;
    let interval = (variance > 0.0).then(|| around(value, Z_95 * variance.sqrt()));
    Some(Estimate { value, interval })
}

/// The pooled two-proportion z-test, two-sided. Right for one look at the end, wrong for many.
/// Source: <https://www.itl.nist.gov/div898/software/dataplot/refman1/auxillar/binotest.htm>.
pub fn two_proportion_z(control: Arm, treatment: Arm) -> Option<TestResult> {
    let difference = treatment.rate()? - control.rate()?;
    let pooled = (control.converted() + treatment.converted()) / (control.exposed() + treatment.exposed());
    let variance = pooled * (1.0 - pooled) * (1.0 / control.exposed() + 1.0 / treatment.exposed());
    if variance <= 0.0 {
        return None;
    }
    let statistic = difference / variance.sqrt();
    Some(TestResult { statistic, p_value: libm::erfc(statistic.abs() / std::f64::consts::SQRT_2) })
}

/// The always-valid test of the uplift: an asymptotic confidence sequence at 95 %, tuned for [`SEQUENTIAL_TUNING`]
/// exposures. The variance of a relative difference grows with treatment's rate, so at small rates what is better needs more
/// data than what is worse by as much, and nearly all of the false alarms (at most 5 %) are of worse.
/// Source: Waudby-Smith et al., "Time-uniform central limit theory and asymptotic confidence sequences",
/// <https://arxiv.org/abs/2103.06476>, eq. 24 (rho), theorem 2.2 (interval) and eq. 155 of version 7 (p-value).
pub fn sequential(control: Arm, treatment: Arm) -> Option<Sequential> {
    const ALPHA: f64 = 0.05;
    let (value, variance) = relative_difference(control, treatment)?;
    if variance <= 0.0 {
        return None;
    }
    let n = control.exposed() + treatment.exposed();
    let spread = -2.0 * libm::log(ALPHA);
    let rho2 = (spread + libm::log(spread + 1.0)) / SEQUENTIAL_TUNING;
    let growth = n * rho2 + 1.0;
    let evidence = rho2 * n * value * value / variance / (2.0 * growth) - libm::log(growth) / 2.0;
    let half = (2.0 * variance * growth / (n * rho2) * libm::log(growth.sqrt() / ALPHA)).sqrt();
    Some(Sequential { p_value: libm::exp(-evidence).min(1.0), interval: around(value, half) })
}

/// Above this many exposures the rates' posteriors are taken for normal, which is then right to 10^-4.
const EXACT_EXPOSURES: u64 = 1_000_000_000;

/// The probability that treatment's rate is above control's, with uniform priors (beta-binomial).
///
/// The closed form is a sum over treatment's conversions; it is added up from its largest term outwards until nothing
/// changes, which takes some multiple of the square root of the exposures.
/// Source: E. Miller, "Formulas for Bayesian A/B Testing", eq. 6, <https://www.evanmiller.org/bayesian-ab-testing.html>.
pub fn probability_to_beat(control: Arm, treatment: Arm) -> f64 {
    if control.exposures.saturating_add(treatment.exposures) > EXACT_EXPOSURES {
        return normal_probability_to_beat(control, treatment);
    }
    let (a_alpha, a_beta) = posterior(control);
    let (b_alpha, b_beta) = posterior(treatment);
    let last = b_alpha - 1.0;
    let peak = ((a_alpha * b_beta - a_alpha - a_beta - b_beta) / (a_beta + 1.0)).floor().clamp(0.0, last);
    let largest = libm::exp(
        ln_beta(a_alpha + peak, a_beta + b_beta)
            - libm::log(b_beta + peak)
            - ln_beta(1.0 + peak, b_beta)
            - ln_beta(a_alpha, a_beta),
    );
    let ratio = |i: f64| (a_alpha + i) / (a_alpha + i + a_beta + b_beta) * (b_beta + i) / (1.0 + i);
    let mut sum = largest;
    let (mut term, mut i) = (largest, peak);
    while i < last && term > sum * f64::EPSILON / 64.0 {
        term *= ratio(i);
        sum += term;
        i += 1.0;
    }
    (term, i) = (largest, peak);
    while i > 0.0 && term > sum * f64::EPSILON / 64.0 {
        i -= 1.0;
        term /= ratio(i);
        sum += term;
    }
    sum.clamp(0.0, 1.0)
}

/// The parameters of a rate's posterior under a uniform prior.
fn posterior(arm: Arm) -> (f64, f64) {
    (arm.converted() + 1.0, arm.exposed() - arm.converted() + 1.0)
}

fn normal_probability_to_beat(control: Arm, treatment: Arm) -> f64 {
    let moments = |arm: Arm| {
        let (alpha, beta) = posterior(arm);
        let total = alpha + beta;
        (alpha / total, alpha * beta / (total * total * (total + 1.0)))
    };
    let ((a_mean, a_variance), (b_mean, b_variance)) = (moments(control), moments(treatment));
    libm::erfc((a_mean - b_mean) / (2.0 * (a_variance + b_variance)).sqrt()) / 2.0
}

/// The logarithm of the beta function.
fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

/// Whether the exposures fit the weights: the chi-square test, for one look. Variants of weight zero do not count as
/// degrees of freedom, and an exposure of one is impossible. `None` without exposures or with fewer than two variants.
/// Source: <https://www.itl.nist.gov/div898/handbook/eda/section3/eda35f.htm>.
pub fn sample_ratio(exposures: &[u64], weights: &[u64]) -> Option<TestResult> {
    let observed = match observed(exposures, weights) {
        Observed::Shares(shares) => shares,
        Observed::Impossible => return Some(TestResult { statistic: f64::INFINITY, p_value: 0.0 }),
        Observed::TooLittle => return None,
    };
    let n: f64 = observed.iter().map(|(count, _)| count).sum();
    let statistic = observed.iter().map(|(count, share)| (count - n * share) * (count - n * share) / (n * share)).sum();
    let freedom = to_f64(observed.len() as u64 - 1);
    Some(TestResult { statistic, p_value: upper_gamma(freedom / 2.0, statistic / 2.0) })
}

/// The same question, right at every look: one over the Bayes factor of a Dirichlet-multinomial against the weights, at
/// most 1. `None` as for [`sample_ratio`].
/// Source: Lindon & Malek, "Anytime-Valid Inference for Multinomial Count Data", `NeurIPS` 2022, eq. 6.
pub fn sequential_sample_ratio(exposures: &[u64], weights: &[u64]) -> Option<f64> {
    let observed = match observed(exposures, weights) {
        Observed::Shares(shares) => shares,
        Observed::Impossible => return Some(0.0),
        Observed::TooLittle => return None,
    };
    let n: f64 = observed.iter().map(|(count, _)| count).sum();
    let c = SRM_CONCENTRATION;
    let per_arm = |(count, share): &(f64, f64)| {
        libm::lgamma(c * share + count) - libm::lgamma(c * share) - count * libm::log(*share)
    };
    let evidence = libm::lgamma(c) - libm::lgamma(c + n) + observed.iter().map(per_arm).sum::<f64>();
    Some(libm::exp(-evidence).min(1.0))
}

/// Exposures beside what was expected of them.
enum Observed {
    /// Count and expected share of each variant with a positive weight.
    Shares(Vec<(f64, f64)>),
    /// A variant of weight zero was seen.
    Impossible,
    /// Nothing was seen, or there is only one variant.
    TooLittle,
}

fn observed(exposures: &[u64], weights: &[u64]) -> Observed {
    let pairs = || exposures.iter().copied().zip(weights.iter().copied());
    if pairs().any(|(count, weight)| weight == 0 && count > 0) {
        return Observed::Impossible;
    }
    let total: f64 = weights.iter().map(|weight| to_f64(*weight)).sum();
    let expected = |(count, weight)| (to_f64(count), to_f64(weight) / total);
    let shares: Vec<_> = pairs().filter(|(_, weight)| *weight > 0).map(expected).collect();
    let enough = shares.len() >= 2 && pairs().any(|(count, _)| count > 0);
    if enough { Observed::Shares(shares) } else { Observed::TooLittle }
}

/// The regularised upper incomplete gamma function Q(a, x), the tail of the chi-square distribution.
/// Source: DLMF <https://dlmf.nist.gov/8.7.E1> (series) and <https://dlmf.nist.gov/8.9.E2> (continued fraction, by
/// Lentz's method). Both converge within a few times the square root of a + x steps on their side of x = a + 1.
fn upper_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let scale = libm::exp(a * libm::log(x) - x - libm::lgamma(a));
    let tail = if x < a + 1.0 { 1.0 - scale * lower_series(a, x) } else { scale * upper_fraction(a, x) };
    tail.clamp(0.0, 1.0)
}

/// Steps after which the expansions below stop anyway.
const GAMMA_STEPS: u32 = 10_000;

fn lower_series(a: f64, x: f64) -> f64 {
    let mut term = 1.0 / a;
    let mut sum = term;
    for step in 1..GAMMA_STEPS {
        term *= x / (a + f64::from(step));
        sum += term;
        if term < sum * f64::EPSILON {
            break;
        }
    }
    sum
}

fn upper_fraction(a: f64, x: f64) -> f64 {
    // Lentz's method divides by both partial values, so neither may be zero.
    const TINY: f64 = 1e-300;
    let nonzero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut denominator = x + 1.0 - a;
    let mut ahead = 1.0 / TINY;
    let mut behind = 1.0 / denominator;
    let mut fraction = behind;
    for step in 1..GAMMA_STEPS {
        let step = f64::from(step);
        let numerator = -step * (step - a);
        denominator += 2.0;
        behind = 1.0 / nonzero(numerator * behind + denominator);
        ahead = nonzero(denominator + numerator / ahead);
        fraction *= behind * ahead;
        if (behind * ahead - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    fraction
}
