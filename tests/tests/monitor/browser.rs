//! A headless browser, driven through its debugging pipe.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use foobar_lab::in_namespace;
use serde_json::{Value, json};

pub struct Browser {
    child: Child,
    commands: File,
    answers: BufReader<File>,
    session: Value,
    number: u64,
    /// What the page did wrong: exceptions, and what its security policy refused.
    pub complaints: Vec<String>,
}

impl Browser {
    pub fn open(namespace: &str, directory: &Path, url: &str) -> Self {
        let pipes = [directory.join("commands"), directory.join("answers")];
        for pipe in &pipes {
            let made = Command::new("mkfifo").arg(pipe).status().expect("mkfifo");
            assert!(made.success());
        }
        let child = in_namespace(namespace, "sh")
            .arg("-c")
            .arg(format!(
                "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                 --hide-scrollbars --user-data-dir={}/profile --remote-debugging-pipe 3<{} 4>{}",
                directory.display(),
                pipes[0].display(),
                pipes[1].display()
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        let commands = fs::OpenOptions::new()
            .write(true)
            .open(&pipes[0])
            .expect("the browser listens");
        let answers = BufReader::new(File::open(&pipes[1]).expect("the browser answers"));
        let mut browser = Self {
            child,
            commands,
            answers,
            session: Value::Null,
            number: 0,
            complaints: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = browser.call(
            "Target.attachToTarget",
            json!({ "targetId": target["targetId"], "flatten": true }),
        );
        browser.session = attached["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.call("Page.navigate", json!({ "url": url }));
        browser
    }

    pub fn resize(&mut self, width: u32, height: u32, mobile: bool) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile }),
        );
    }

    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.call(
            "Runtime.evaluate",
            json!({ "expression": expression, "returnByValue": true }),
        );
        answer["result"]["value"].clone()
    }

    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call(
                "Input.dispatchKeyEvent",
                json!({ "type": kind, "key": key, "text": key }),
            );
        }
    }

    pub fn wait(&mut self, what: &str, expression: &str) {
        let begun = Instant::now();
        while self.evaluate(expression) != true {
            if begun.elapsed() > Duration::from_secs(super::PATIENCE) {
                let text = self.evaluate("document.body.innerText");
                panic!("not in time: {what}; {:?}; {text}", self.complaints);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn screenshot(&mut self, path: &Path) {
        let answer = self.call(
            "Page.captureScreenshot",
            json!({ "format": "png", "captureBeyondViewport": true }),
        );
        let picture = decoded(answer["data"].as_str().expect("a picture"));
        assert!(picture.starts_with(b"\x89PNG"));
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, picture).expect("written");
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut command = json!({ "id": self.number, "method": method, "params": parameters });
        if !self.session.is_null() {
            command["sessionId"] = self.session.clone();
        }
        self.commands
            .write_all(format!("{command}\0").as_bytes())
            .expect("the browser lives");
        loop {
            let mut text = Vec::new();
            self.answers
                .read_until(0, &mut text)
                .expect("the browser lives");
            text.pop();
            let message: Value = serde_json::from_slice(&text).expect("JSON");
            if message["id"] == self.number {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => {
                    self.complaints.push(message["params"].to_string());
                }
                Some("Log.entryAdded") if message["params"]["entry"]["level"] == "error" => {
                    self.complaints.push(message["params"]["entry"].to_string());
                }
                _ => {}
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Base64.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}
