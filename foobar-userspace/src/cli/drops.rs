//! `foobar drops`: which packets are dropped, one by one, and why.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    net::IpAddr,
    ops::ControlFlow,
    path::PathBuf,
};

use foobar::{admin::client, monitor::lines::Stream};
use ipnet::IpNet;
use serde_json::Value;

use super::{
    arguments::{Arguments, Output},
    failure::{Failure, Status},
    output::say,
};

/// Which drops, and what becomes of their frames.
#[derive(Debug, Default)]
pub struct Wanted {
    /// A reason, or the rule that dropped it.
    pub reason: Option<String>,
    pub source: Option<IpNet>,
    pub pcap: Option<PathBuf>,
}

pub fn follow(arguments: &Arguments, wanted: &Wanted) -> Result<(), Failure> {
    let mut capture = match &wanted.pcap {
        Some(path) => Some(Capture::create(path)?),
        None => None,
    };
    let mut ended = Ok(());
    client::follow(&super::socket(arguments)?, Stream::Drops, |line| {
        let Ok(drop) = serde_json::from_str::<Value>(line) else {
            return ControlFlow::Continue(());
        };
        if wanted.takes(&drop) {
            ended = match &mut capture {
                Some(capture) => capture.write(&drop),
                None => Ok(()),
            }
            .and_then(|()| say(&format!("{}\n", shown(arguments.output, line, &drop))));
        }
        match ended {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    ended
}

impl Wanted {
    fn takes(&self, drop: &Value) -> bool {
        let text = |key: &str| drop[key].as_str().unwrap_or_default();
        let reason = self
            .reason
            .as_ref()
            .is_none_or(|wanted| text("reason") == wanted || text("rule") == wanted);
        let source = self.source.is_none_or(|net| {
            text("src")
                .parse::<IpAddr>()
                .is_ok_and(|source| net.contains(&source))
        });
        reason && source
    }
}

/// `12:03:11.250 wan in  rule edge/jailed  192.0.2.7:51200 > 203.0.113.10:22 tcp S 60`
fn shown(output: Output, line: &str, drop: &Value) -> String {
    if matches!(output, Output::Json | Output::Jsonl) {
        return line.to_owned();
    }
    let text = |key: &str| drop[key].as_str().unwrap_or_default();
    let end = |address: &str, port: &str| match (text(address), drop[port].as_u64()) {
        ("", _) => "?".to_owned(),
        (address, Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
        (address, Some(port)) => format!("{address}:{port}"),
        (address, None) => address.to_owned(),
    };
    let time = text("time").get(11..23).unwrap_or_default();
    let words = [
        time.to_owned(),
        text("interface").to_owned(),
        if text("direction") == "egress" {
            "out"
        } else {
            "in"
        }
        .to_owned(),
        text("reason").to_owned(),
        text("rule").to_owned(),
        end("src", "sport"),
        ">".to_owned(),
        end("dst", "dport"),
        text("proto").to_owned(),
        text("flags").to_owned(),
        drop["length"].to_string(),
    ];
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// A capture file that every analyser reads.
struct Capture(BufWriter<File>);

impl Capture {
    fn create(path: &PathBuf) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| {
            Failure::told(
                Status::Failed,
                format!("cannot write {}: {error}", path.display()),
            )
        })?;
        let mut file = BufWriter::new(file);
        // Magic of microseconds, version 2.4, no zone, no accuracy, length, Ethernet.
        let words: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];
        let header: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        file.write_all(&header)
            .map_err(|error| Failure::failed(&error))?;
        Ok(Self(file))
    }

    fn write(&mut self, drop: &Value) -> Result<(), Failure> {
        let frame = bytes(drop["frame"].as_str().unwrap_or_default());
        let time = drop["time"]
            .as_str()
            .and_then(|time| humantime::parse_rfc3339(time).ok())
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
            .unwrap_or_default();
        let word = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        let captured = word(frame.len() as u64);
        let length = word(drop["length"].as_u64().unwrap_or_default() + ETHERNET);
        let record = [
            word(time.as_secs()).as_slice(),
            word(u64::from(time.subsec_micros())).as_slice(),
            captured.as_slice(),
            length.as_slice(),
            frame.as_slice(),
        ]
        .concat();
        // Flushed at once: the command ends by Ctrl-C.
        self.0
            .write_all(&record)
            .and_then(|()| self.0.flush())
            .map_err(|error| Failure::failed(&error))
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .filter_map(|at| u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok())
        .collect()
}

const ETHERNET: u64 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn drop() -> Value {
        serde_json::json!({
            "time": "2026-11-24T12:03:11.250Z", "interface": "wan", "direction": "ingress",
            "reason": "rule", "rule": "edge/jailed", "src": "192.0.2.7", "dst": "203.0.113.10",
            "proto": "tcp", "sport": 51_200, "dport": 22, "flags": "S", "length": 60, "frame": "0102ff",
        })
    }

    #[test]
    fn a_drop_is_one_line() {
        assert_eq!(
            shown(Output::Table, "", &drop()),
            "12:03:11.250 wan in rule edge/jailed 192.0.2.7:51200 > 203.0.113.10:22 tcp S 60"
        );
    }

    #[test]
    fn a_reason_is_a_reason_or_a_rule_and_a_source_is_a_net() {
        let wanted = |reason: Option<&str>, source: Option<&str>| Wanted {
            reason: reason.map(str::to_owned),
            source: source.map(|net| net.parse().expect("a net")),
            pcap: None,
        };
        assert!(wanted(Some("rule"), None).takes(&drop()));
        assert!(wanted(Some("edge/jailed"), Some("192.0.2.0/24")).takes(&drop()));
        assert!(!wanted(Some("policy"), None).takes(&drop()));
        assert!(!wanted(None, Some("198.51.100.0/24")).takes(&drop()));
    }

    #[test]
    fn a_capture_begins_with_its_header_and_holds_the_frame() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("drops.pcap");
        let Ok(mut capture) = Capture::create(&path) else {
            panic!("a file");
        };
        assert!(capture.write(&drop()).is_ok());
        let file = std::fs::read(&path).expect("written");
        assert_eq!(file.len(), 24 + 16 + 3);
        assert_eq!(file[..4], 0xa1b2_c3d4_u32.to_le_bytes());
        assert_eq!(file[40..], [1, 2, 0xff]);
    }
}
