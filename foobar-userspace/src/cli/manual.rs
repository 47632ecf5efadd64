//! `foobar man DIRECTORY`, for the package: a manual page for each command.

use std::{fs, io, path::Path};

use clap::CommandFactory as _;

use super::{arguments::Arguments, failure::Failure};

/// `foobar.1`, `foobar-set-add.1`, …
pub fn write(directory: &Path) -> Result<(), Failure> {
    let mut command = Arguments::command();
    command.build();
    fs::create_dir_all(directory)
        .and_then(|()| pages(&command, "foobar", directory))
        .map_err(|error| Failure::failed(&error))
}

fn pages(command: &clap::Command, name: &str, directory: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name)
        .manual("foobar")
        .render(&mut page)?;
    fs::write(directory.join(format!("{name}.1")), page)?;
    for sub in command.get_subcommands() {
        if sub.get_name() != "help" && !sub.is_hide_set() {
            pages(sub, &format!("{name}-{}", sub.get_name()), directory)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path()).expect("written");
        for page in ["foobar.1", "foobar-stats.1", "foobar-set-add.1"] {
            let text = fs::read_to_string(directory.path().join(page)).expect(page);
            assert!(text.contains(".TH"), "{text}");
        }
        let text = fs::read_to_string(directory.path().join("foobar-stats.1")).expect("a page");
        assert!(text.contains("from\\-maps"), "{text}");
    }
}
