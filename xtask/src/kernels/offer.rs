//! Which kernels Debian's archive offers, and the newest of each series.

use std::collections::BTreeMap;

/// For `apt-cache search --names-only`: the smallest images, with a version and not by the name of a series.
pub const PATTERN: &str = "^linux-image-[0-9].*-cloud-amd64$";

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kernel {
    /// `6.12`
    pub series: String,
    /// `linux-image-6.12.111+deb12-cloud-amd64`
    pub package: String,
}

/// Of what `apt-cache search` says.
pub fn newest(said: &str) -> Vec<Kernel> {
    let mut newest: BTreeMap<(u64, u64), (Vec<u64>, &str)> = BTreeMap::new();
    for package in said.lines().filter_map(|line| line.split(" - ").next()) {
        let numbers = numbers(package);
        // A name of two numbers stands for the newest of a series, and holds no kernel.
        let [major, minor, _, ..] = numbers[..] else {
            continue;
        };
        let known = newest.entry((major, minor)).or_default();
        if numbers > known.0 {
            *known = (numbers, package);
        }
    }
    newest
        .into_iter()
        .map(|((major, minor), (_, package))| Kernel {
            series: format!("{major}.{minor}"),
            package: package.to_owned(),
        })
        .collect()
}

fn numbers(package: &str) -> Vec<u64> {
    let version = package.trim_end_matches("-cloud-amd64");
    version
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_series_the_newest_is_tried() {
        let said = "\
linux-image-6.1.0-9-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)
linux-image-6.1.0-50-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)
linux-image-6.12-cloud-amd64 - Linux for x86-64 cloud (meta-package)
linux-image-6.12.111+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)
linux-image-6.12.69+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)
";
        let packages: Vec<_> = newest(said)
            .into_iter()
            .map(|kernel| (kernel.series, kernel.package))
            .collect();
        let expected = [
            ("6.1", "linux-image-6.1.0-50-cloud-amd64"),
            ("6.12", "linux-image-6.12.111+deb12-cloud-amd64"),
        ];
        let expected = expected.map(|(series, package)| (series.to_owned(), package.to_owned()));
        assert_eq!(packages, expected);
    }
}
