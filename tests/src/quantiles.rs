//! Quantiles of few measurements: by nearest rank, so that each is one that was measured.

use serde::Serialize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    pub count: usize,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

impl Quantiles {
    #[must_use]
    pub fn of(measured: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = measured.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.checked_sub(1)?).copied()
        };
        Self {
            count: sorted.len(),
            p50: rank(50),
            p99: rank(99),
            max: sorted.last().copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_measurement() {
        let quantiles = Quantiles::of((1..=200).rev().map(f64::from));
        assert_eq!(
            (quantiles.p50, quantiles.p99, quantiles.max),
            (Some(100.0), Some(198.0), Some(200.0))
        );
        assert_eq!(Quantiles::of([3.0]).p99, Some(3.0));
        assert_eq!(Quantiles::of([]), Quantiles::default());
    }
}
