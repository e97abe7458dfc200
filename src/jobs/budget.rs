//! What a fit takes of memory and disk, and so where its coefficients lie.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::factor::FitConfig;
use crate::{disk, memory};

/// Coefficients that take more than this while they are fitted lie in files, whatever memory there
/// is: memory is for factors and blocks in flight.
const IN_MEMORY: u64 = 1 << 30;

/// Bytes that a fit takes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FitBudget {
    pub memory: u64,
    /// 0: its coefficients lie in memory.
    pub disk: u64,
}

impl FitBudget {
    /// What a fit to n × d activations takes of so much free memory and disk, or why neither holds
    /// it.
    ///
    /// # Errors
    /// The reason, with what would fit.
    pub fn of(
        config: &FitConfig,
        (n, d): (usize, usize),
        memory: Option<u64>,
        disk: u64,
    ) -> Result<Self, String> {
        let free = memory.unwrap_or(u64::MAX);
        let coefficients = config.coefficient_bytes(n);
        let rest = config.memory_bytes(n, d);
        if coefficients <= IN_MEMORY && coefficients.saturating_add(rest) <= free {
            return Ok(Self {
                memory: coefficients + rest,
                disk: 0,
            });
        }
        let what = format!("{} features of {n} token rows take", config.features);
        let bytes = disk::human_bytes;
        if rest > free {
            return Err(format!(
                "{what} {} of memory, and {} is free: ask for fewer",
                bytes(rest),
                bytes(free)
            ));
        }
        if coefficients > disk {
            let most = disk / (coefficients / config.features.max(1) as u64).max(1);
            return Err(format!(
                "{what} {} of disk while they are fitted, and {} is free: {}",
                bytes(coefficients),
                bytes(disk),
                if most > 0 {
                    format!("at most {most} features fit")
                } else {
                    "use a smaller corpus".into()
                }
            ));
        }
        Ok(Self {
            memory: rest,
            disk: coefficients,
        })
    }
}

/// The folder for a fit's coefficients, `dir`, where they shall not lie in memory.
pub(crate) fn scratch(
    config: &FitConfig,
    shape: (usize, usize),
    dir: &Path,
) -> Result<Option<PathBuf>> {
    let room = FitBudget::of(config, shape, memory::available()?, disk::free_space(dir)?)
        .map_err(Error::refused)?;
    Ok((room.disk > 0).then(|| dir.to_path_buf()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coefficients_go_to_disk_when_there_are_many_and_are_refused_when_nothing_holds_them() {
        let config = FitConfig {
            features: 100,
            ..FitConfig::default()
        };
        let budget = |n, memory, disk| FitBudget::of(&config, (n, 1536), memory, disk);
        let small = budget(10_000, Some(8 << 30), 0).unwrap();
        assert!(small.disk == 0 && small.memory > 3 * 4 * 100 * 10_000);
        // A million rows, however much memory there is; and few where there is little.
        for (n, memory) in [
            (1_000_000, None),
            (1_000_000, Some(1 << 40)),
            (200_000, Some(550 << 20)),
        ] {
            let large = budget(n, memory, 1 << 40).unwrap();
            assert!(
                large.disk >= 4 * 4 * 100 * n as u64 && large.memory < 600 << 20,
                "{large:?}"
            );
        }
        assert!(
            budget(1_000_000, None, 500_000_000)
                .unwrap_err()
                .contains("at most 3")
        );
        assert!(
            budget(1_000_000, None, 1000)
                .unwrap_err()
                .contains("smaller corpus")
        );
        assert!(
            budget(10_000, Some(4096), 1 << 40)
                .unwrap_err()
                .contains("4.0 KiB is free")
        );
    }
}
