//! Every command in the operators' pages, run on the lab's balancer. Needs root.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use foobar_lab::{Lab, Options};

struct Estate {
    lab: Lab,
    foobar: PathBuf,
    _lock: fs::File,
}

impl Drop for Estate {
    fn drop(&mut self) {
        if let Err(error) = Lab::down(Some(&self.foobar)) {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn every_command_of_the_manual_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let commands = commands(&root.join("docs/operators"));
    assert!(commands.len() > 40, "{}", commands.len());
    let lock = foobar_lab::lock().expect("the lab is free");
    let foobar = env::var_os("FOOBAR_BIN")
        .map(PathBuf::from)
        .expect("FOOBAR_BIN names the product; run `cargo xtask test`");
    let options = Options {
        config: root.join("config/foobar.toml"),
        foobar: Some(foobar.clone()),
        databases: foobar_lab::databases::Databases::default(),
    };
    let lab = Lab::up(&options, &mut |_| {}).unwrap_or_else(|error| panic!("{error:#}"));
    let estate = Estate {
        lab,
        foobar,
        _lock: lock,
    };
    let failures: Vec<String> = commands
        .iter()
        .filter_map(|command| estate.failure(command))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A command, and where it stands.
struct Command {
    place: String,
    line: String,
    may_fail: bool,
}

/// The lines that begin with `foobar` in blocks of shell.
fn commands(directory: &Path) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(directory)
        .expect("pages")
        .map(|entry| entry.expect("readable").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            commands.extend(self::commands(&path));
            continue;
        }
        let text = fs::read_to_string(&path).expect("text");
        let mut in_shell = false;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.starts_with("```") {
                in_shell = line == "```sh";
            } else if in_shell && line.starts_with("foobar ") {
                let (command, comment) = line.split_once('#').unwrap_or((line, ""));
                commands.push(Command {
                    place: format!("{}:{number}", path.display()),
                    line: command.trim().to_owned(),
                    may_fail: comment.contains("may exit 1"),
                });
            }
        }
    }
    commands
}

impl Estate {
    fn failure(&self, command: &Command) -> Option<String> {
        let directory = self.foobar.parent().expect("a directory");
        let endless = command.line == "foobar top"
            || command
                .line
                .split(' ')
                .any(|word| matches!(word, "-w" | "-f" | "--follow"));
        // A terminal for the one that needs it.
        let line = match command.line.as_str() {
            "foobar top" => "script -qec 'foobar top' /dev/null".to_owned(),
            line => line.to_owned(),
        };
        let script = format!(
            "export PATH={}:$PATH FOOBAR_CONFIG={} FOOBAR_NODE=lb1 TERM=xterm; timeout 2 {line}",
            directory.display(),
            Lab::config_path().display()
        );
        let script = if endless {
            script
        } else {
            script.replace("timeout 2", "timeout 60")
        };
        let output = self
            .lab
            .run("lb1", &["sh", "-c", &script])
            .expect("a shell");
        let status = output.status.code();
        let works = match status {
            Some(0) => true,
            Some(124) => endless,
            Some(1) => command.may_fail,
            _ => false,
        };
        (!works).then(|| {
            format!(
                "{}: `{}` ends with {status:?}: {}",
                command.place,
                command.line,
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }
}
