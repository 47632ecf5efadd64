//! Rust source as the paths that it names; comments and literals left out.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// A source file by its path in the workspace.
#[derive(Debug)]
pub struct File {
    pub path: String,
    pub text: String,
}

/// A path as written or imported (`use a::{b, c::d}` names `a::b` and `a::c::d`); a lone word is a path of one.
#[derive(Debug, Eq, PartialEq)]
pub struct Named {
    pub line: usize,
    pub segments: Vec<String>,
}

/// Every Rust file of the workspace's packages.
pub fn read(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut directories: Vec<PathBuf> = PACKAGES.iter().map(|package| root.join(package)).collect();
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let path = path.strip_prefix(root)?.to_string_lossy().into_owned();
                files.push(File { path, text });
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

pub fn named(text: &str) -> Vec<Named> {
    let tokens = tokens(text);
    let mut named = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at].kind {
            Kind::Word(_) => at = path(&tokens, at, &[], &mut named),
            Kind::Mark(_) => at += 1,
        }
    }
    named
}

#[derive(Debug)]
struct Token {
    line: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Word(String),
    Mark(char),
}

/// Reads the path that starts at `at`, and answers where it ends.
fn path(tokens: &[Token], mut at: usize, prefix: &[String], named: &mut Vec<Named>) -> usize {
    let mut segments = prefix.to_vec();
    let line = tokens[at].line;
    while let Some(Token {
        kind: Kind::Word(word),
        ..
    }) = tokens.get(at)
    {
        segments.push(word.clone());
        at += 1;
        if !(is(tokens, at, ':') && is(tokens, at + 1, ':')) {
            break;
        }
        at += 2;
        if is(tokens, at, '{') {
            return group(tokens, at + 1, &segments, named);
        }
    }
    named.push(Named { line, segments });
    at
}

fn group(tokens: &[Token], mut at: usize, prefix: &[String], named: &mut Vec<Named>) -> usize {
    while at < tokens.len() && !is(tokens, at, '}') {
        at = match &tokens[at].kind {
            Kind::Word(_) => path(tokens, at, prefix, named),
            Kind::Mark(_) => at + 1,
        };
    }
    at + 1
}

fn is(tokens: &[Token], at: usize, mark: char) -> bool {
    matches!(tokens.get(at), Some(Token { kind: Kind::Mark(found), .. }) if *found == mark)
}

fn tokens(text: &str) -> Vec<Token> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < characters.len() {
        let rest = &characters[at..];
        let length = match rest {
            ['/', '/', ..] => until(rest, &['\n']),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] | ['b' | 'c', '"', ..] => string(rest),
            ['r', '"' | '#', ..] | ['b' | 'c', 'r', '"' | '#', ..] if raw_string(rest) > 0 => {
                raw_string(rest)
            }
            ['\'', ..] => character(rest),
            [first, ..] if is_word(*first) => {
                let length = rest
                    .iter()
                    .take_while(|character| is_word(**character))
                    .count();
                let kind = Kind::Word(rest[..length].iter().collect());
                tokens.push(Token { line, kind });
                length
            }
            [first, ..] => {
                if !first.is_whitespace() {
                    let kind = Kind::Mark(*first);
                    tokens.push(Token { line, kind });
                }
                1
            }
            [] => break,
        };
        let end = (at + length).min(characters.len());
        line += characters[at..end]
            .iter()
            .filter(|character| **character == '\n')
            .count();
        at = end;
    }
    tokens
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn until(rest: &[char], end: &[char]) -> usize {
    rest.windows(end.len())
        .position(|window| window == end)
        .unwrap_or(rest.len())
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => {
                depth += 1;
                at += 2;
            }
            ['*', '/', ..] => {
                depth -= 1;
                at += 2;
            }
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[char]) -> usize {
    let mut at = until(rest, &['"']) + 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// 0 when it is none: `r#type`.
fn raw_string(rest: &[char]) -> usize {
    let start = until(rest, &['r']) + 1;
    let hashes = rest[start..]
        .iter()
        .take_while(|character| **character == '#')
        .count();
    let body = start + hashes;
    if rest.get(body) != Some(&'"') {
        return 0;
    }
    let mut end = vec!['"'];
    end.extend(std::iter::repeat_n('#', hashes));
    body + 1 + until(&rest[body + 1..], &end) + end.len()
}

/// A character literal, or the tick of a lifetime.
fn character(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', _, tail @ ..] => 3 + until(tail, &['\'']) + 1,
        ['\'', _, '\'', ..] => 3,
        _ => 1,
    }
}

const PACKAGES: [&str; 4] = ["foobar-ebpf", "foobar-userspace", "tests", "xtask"];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        named(text)
            .iter()
            .map(|named| format!("{}:{}", named.line, named.segments.join("::")))
            .collect()
    }

    #[test]
    fn a_path_is_named_whole() {
        assert_eq!(
            names("tokio::time::sleep(x)"),
            ["1:tokio::time::sleep", "1:x"]
        );
    }

    #[test]
    fn grouped_imports_are_named_one_by_one() {
        let text = "use std::{\n    net::{TcpStream, UdpSocket as Socket},\n    time,\n};\nfn";
        assert_eq!(
            names(text),
            [
                "1:use",
                "2:std::net::TcpStream",
                "2:std::net::UdpSocket",
                "2:std::net::as",
                "2:std::net::Socket",
                "3:std::time",
                "5:fn",
            ]
        );
    }

    #[test]
    fn comments_and_literals_name_nothing() {
        let text = r####"// tokio
/* aya /* nested */ aya */ "unsafe \" aya" b"aya" r#"aya " tokio"# '"' '\'' '\u{61}' x"####;
        assert_eq!(names(text), ["2:x"]);
    }

    #[test]
    fn lifetimes_are_no_literals() {
        assert_eq!(names("&'a str"), ["1:a", "1:str"]);
        assert_eq!(names("<'a, 'b> aya"), ["1:a", "1:b", "1:aya"]);
    }

    #[test]
    fn lines_are_counted_through_long_literals() {
        assert_eq!(names("\"\n\n\"\n/*\n*/ x"), ["5:x"]);
    }
}
