//! Walks a file by the grammar: unknown keys, wrong types, unreadable words, unknown names, what is not built yet.

use std::ops::Range;

use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{
    diagnostics::{Problem, Problems},
    grammar::{Choice, FILE_TABLE, Key, Kind, Named, PORTS, Realm, SECRET, Table, Word},
    names::Names,
    nearest::{list, nearest, suggest},
    quantity::WrittenQuantity,
    tree::{Entry, Name},
    words::{Label, Member, Misread, WrittenPeer},
};

pub(super) fn check(root: &Spanned<DeValue<'_>>, names: &Names, problems: &mut Problems) {
    let mut checker = Checker { names, problems };
    let root = Entry::root(root);
    checker.table(&FILE_TABLE, root, 0..0);
    checker.nodes(root);
}

struct Checker<'a> {
    names: &'a Names,
    problems: &'a mut Problems,
}

impl Checker<'_> {
    /// `place` is where a missing key would stand.
    fn table(&mut self, table: &Table, entry: Entry<'_>, place: Range<usize>) {
        for (name, value) in entry.entries() {
            match table.keys.iter().find(|key| key.name == name.text) {
                Some(key) => self.key(key, name, value),
                None => self.unknown_key(table, name),
            }
        }
        for key in table.keys.iter().filter(|key| key.needed) {
            if entry.at(key.name).is_none() && !self.names.partial {
                self.problems.report(
                    Problem::new(
                        place.clone(),
                        format!("`{}` is missing in {}", key.name, table.what),
                    )
                    .help(format!(
                        "add `{} = {}`",
                        key.name,
                        example(&key.kind)
                    )),
                );
            }
        }
    }

    fn nodes(&mut self, root: Entry<'_>) {
        for (name, _) in root.at("nodes").map(Entry::entries).unwrap_or_default() {
            if !self.names.has(Realm::Host, name.text) {
                self.problems.report(
                    Problem::new(name.span(), format!("node `{}` is not a host", name.text))
                        .help(self.known(Realm::Host, name.text)),
                );
            }
        }
    }

    fn key(&mut self, key: &Key, name: Name<'_>, value: Entry<'_>) {
        if let Some(cure) = key.later {
            self.problems.report(not_yet(name.span(), key.name, cure));
        }
        self.value(&key.kind, key.name, name.span(), value);
    }

    fn unknown_key(&mut self, table: &Table, name: Name<'_>) {
        let known = table.keys.iter().map(|key| key.name);
        self.problems.report(
            Problem::new(
                name.span(),
                format!("unknown key `{}` in {}", name.text, table.what),
            )
            .help(suggest(name.text, "known keys are", known)),
        );
    }

    fn value(&mut self, kind: &Kind, key: &str, key_span: Range<usize>, entry: Entry<'_>) {
        match kind {
            Kind::Text => self.text(key, entry),
            Kind::Word(word) => self.word(word, key, entry),
            Kind::Whole { least, most } => self.whole(*least..=*most, kind, key, entry),
            Kind::Truth if entry.truth().is_some() => {}
            Kind::Choice(choices) => self.choice(choices, kind, key, entry),
            Kind::Name(realm) => match entry.text() {
                Some(name) => self.reference(*realm, name, entry),
                None => self.wrong_type(kind, key, entry),
            },
            Kind::Peer => self.peer(kind, key, entry),
            Kind::Member => self.member(kind, key, entry),
            Kind::Ports => match entry.whole() {
                Some(port) if u16::try_from(port).is_ok() => {}
                Some(port) => self.problems.report(
                    Problem::new(entry.span(), format!("`{port}` is not a port"))
                        .help("ports are numbers from 1 to 65535"),
                ),
                None => self.word(&PORTS, key, entry),
            },
            Kind::OneOrMany(kind) => {
                for entry in entry.one_or_many() {
                    self.value(kind, key, entry.span(), entry);
                }
            }
            Kind::Many(element) if entry.value().is_array() => {
                for entry in entry.elements() {
                    self.value(element, key, entry.span(), entry);
                }
            }
            Kind::Table(table) if entry.value().is_table() => {
                let place = if self.problems.text()[..]
                    .get(entry.span())
                    .is_some_and(str::is_empty)
                {
                    key_span
                } else {
                    entry.span()
                };
                self.table(table, entry, place);
            }
            Kind::Named(named) if entry.value().is_table() => self.named(named, entry),
            Kind::Quantity => match WrittenQuantity::of(entry) {
                Some(Ok(_)) => {}
                Some(Err(misread)) => self.misread(entry.span(), misread),
                None => self.wrong_type(kind, key, entry),
            },
            Kind::Secret => self.secret(key, entry),
            Kind::Truth | Kind::Many(_) | Kind::Table(_) | Kind::Named(_) => {
                self.wrong_type(kind, key, entry);
            }
        }
    }

    fn text(&mut self, key: &str, entry: Entry<'_>) {
        match entry.text() {
            Some("") => self.problems.report(
                Problem::new(entry.span(), format!("`{key}` is empty"))
                    .help("write something, or take it out"),
            ),
            Some(_) => {}
            None => self.wrong_type(&Kind::Text, key, entry),
        }
    }

    fn word(&mut self, word: &'static Word, key: &str, entry: Entry<'_>) {
        match entry.text() {
            Some(text) => {
                if let Err(misread) = (word.read)(text) {
                    self.misread(entry.span(), misread);
                }
            }
            None => self.wrong_type(&Kind::Word(word), key, entry),
        }
    }

    fn misread(&mut self, span: Range<usize>, misread: Misread) {
        self.problems
            .report(Problem::new(span, misread.message).help(misread.cure));
    }

    fn whole(
        &mut self,
        allowed: std::ops::RangeInclusive<i64>,
        kind: &Kind,
        key: &str,
        entry: Entry<'_>,
    ) {
        match entry.whole() {
            Some(number) if allowed.contains(&number) => {}
            None if !entry.value().is_integer() => self.wrong_type(kind, key, entry),
            _ if key == "version" => self.problems.report(
                Problem::new(
                    entry.span(),
                    "this foobar does not know that version of the language",
                )
                .help("write `version = 1`, or install the foobar that the file was written for"),
            ),
            _ => self.problems.report(
                Problem::new(entry.span(), format!("`{key}` is out of range"))
                    .help(format!("write {}", what(kind))),
            ),
        }
    }

    fn choice(&mut self, choices: &[Choice], kind: &Kind, key: &str, entry: Entry<'_>) {
        let Some(text) = entry.text() else {
            self.wrong_type(kind, key, entry);
            return;
        };
        match choices.iter().find(|choice| choice.word == text) {
            Some(Choice { later: None, .. }) => {}
            Some(Choice {
                later: Some(cure), ..
            }) => {
                let name = format!("{key} = \"{text}\"");
                self.problems.report(not_yet(entry.span(), &name, cure));
            }
            None => {
                let words = choices.iter().map(|choice| choice.word);
                self.problems.report(
                    Problem::new(entry.span(), format!("`{key}` cannot be `{text}`"))
                        .help(suggest(text, "it may be", words)),
                );
            }
        }
    }

    fn reference(&mut self, realm: Realm, name: &str, entry: Entry<'_>) {
        if self.names.has(realm, name) {
            return;
        }
        let problem = Problem::new(entry.span(), format!("unknown {} `{name}`", realm.word()));
        let bare = name
            .strip_prefix('@')
            .filter(|bare| self.names.has(realm, bare));
        self.problems.report(problem.help(match bare {
            Some(bare) => format!("write it without `@` here: `{bare}`"),
            None => self.known(realm, name),
        }));
    }

    fn known(&self, realm: Realm, name: &str) -> String {
        let section = realm.sections().first().copied().unwrap_or_default();
        if self.names.of_realm(realm).next().is_none() {
            return format!(
                "there is no {} yet: define it under `[{section}]`",
                realm.word()
            );
        }
        let what = match realm {
            Realm::Policy => "policies there are".to_owned(),
            _ => format!("{}s there are", realm.word()),
        };
        match nearest(name, self.names.of_realm(realm)) {
            Some(near) if self.names.of_realm(realm).nth(1).is_none() => {
                format!("did you mean `{near}`?")
            }
            Some(near) => format!(
                "did you mean `{near}`? {what} {}",
                list(self.names.of_realm(realm))
            ),
            None => format!(
                "define it under `[{section}]`; {what} {}",
                list(self.names.of_realm(realm))
            ),
        }
    }

    fn peer(&mut self, kind: &Kind, key: &str, entry: Entry<'_>) {
        let Some(text) = entry.text() else {
            self.wrong_type(kind, key, entry);
            return;
        };
        match text.parse() {
            Ok(WrittenPeer::Prefix(_)) => {}
            Ok(WrittenPeer::Set(name)) => self.reference(Realm::Set, &name, entry),
            Ok(WrittenPeer::Host(name)) if self.names.has(Realm::Host, &name) => {}
            Ok(WrittenPeer::Host(name)) => {
                let help = if matches!(name.as_str(), "any" | "all" | "*" | "anywhere") {
                    format!("take `{key}` out: without it the rule meets every address")
                } else if self.names.has(Realm::Set, &name) {
                    format!("sets are written with `@`: `@{name}`")
                } else {
                    self.known(Realm::Host, &name)
                };
                let problem = Problem::new(entry.span(), format!("unknown host `{name}`"));
                self.problems.report(problem.help(help));
            }
            Err(misread) => self.misread(entry.span(), misread),
        }
    }

    fn member(&mut self, kind: &Kind, key: &str, entry: Entry<'_>) {
        match entry.text().map(str::parse::<Member>) {
            Some(Ok(member)) => self.reference(Realm::Host, &member.host, entry),
            Some(Err(misread)) => self.misread(entry.span(), misread),
            None => self.wrong_type(kind, key, entry),
        }
    }

    fn named(&mut self, named: &Named, entry: Entry<'_>) {
        for (name, value) in entry.entries() {
            if let Err(misread) = name.text.parse::<Label>() {
                self.misread(name.span(), misread);
            }
            let kind = &named.kind;
            if matches!(kind, Kind::Table(_) | Kind::Named(_)) && !value.value().is_table() {
                self.wrong_type(kind, named.what, value);
            } else {
                self.value(kind, name.text, name.span(), value);
            }
        }
    }

    fn secret(&mut self, key: &str, entry: Entry<'_>) {
        let cure = format!(
            "write `{key} = {{ credential = \"…\" }}`, `{{ file = \"…\" }}` or `{{ env = \"…\" }}`"
        );
        if !entry.value().is_table() {
            self.problems.hide(entry.extent());
            self.problems.report(
                Problem::new(
                    entry.span(),
                    format!("`{key}` is a secret and never stands in this file"),
                )
                .help(cure),
            );
            return;
        }
        self.table(&SECRET, entry, entry.span());
        let sources = SECRET
            .keys
            .iter()
            .filter(|key| entry.at(key.name).is_some());
        if sources.count() != 1 && !self.problems.touch(&entry.extent()) {
            self.problems.report(
                Problem::new(
                    entry.span(),
                    format!("`{key}` must say where it is found, once"),
                )
                .help(cure),
            );
        }
    }

    fn wrong_type(&mut self, kind: &Kind, key: &str, entry: Entry<'_>) {
        let found = match entry.value().type_str() {
            "integer" => "a number",
            "float" => "a number with a fraction",
            "boolean" => "true or false",
            "string" => "a string",
            "array" => "an array",
            "table" => "a table",
            _ => "a date or time",
        };
        self.problems.report(
            Problem::new(
                entry.span(),
                format!("`{key}` must be {}, not {found}", what(kind)),
            )
            .help(self.retyped(kind, key, entry)),
        );
    }

    fn retyped(&self, kind: &Kind, key: &str, entry: Entry<'_>) -> String {
        let written = self.problems.text().get(entry.span()).unwrap_or_default();
        match kind {
            Kind::Whole { .. } if entry.text().is_some_and(|text| text.parse::<i64>().is_ok()) => {
                format!(
                    "write it without quotes: `{key} = {}`",
                    entry.text().unwrap_or_default()
                )
            }
            Kind::Word(word) if word.what == "a duration" && entry.value().is_integer() => {
                format!("write it with its unit: `{key} = \"{written}s\"`")
            }
            Kind::Word(word) if word.what == "a rate" && entry.value().is_integer() => {
                format!("write it with its unit: `{key} = \"{written}/s\"`")
            }
            Kind::Many(_) if !entry.value().is_table() && !written.contains('\n') => {
                format!("put it into brackets: `{key} = [{written}]`")
            }
            _ => format!("write it like `{key} = {}`", example(kind)),
        }
    }
}

fn not_yet(span: Range<usize>, what: &str, cure: &str) -> Problem {
    Problem::new(span, format!("`{what}` is not yet supported")).help(cure)
}

/// "a whole number from 1 to 1000"
fn what(kind: &Kind) -> String {
    match kind {
        Kind::Text | Kind::Choice(_) => "a string".to_owned(),
        Kind::Word(word) => format!("{} in quotes", word.what),
        Kind::Whole { least, most } if *most == i64::MAX => format!("a whole number from {least}"),
        Kind::Whole { least, most } if least == most => format!("the number {least}"),
        Kind::Whole { least, most } => format!("a whole number from {least} to {most}"),
        Kind::Quantity => "a number, or a number and its unit in quotes".to_owned(),
        Kind::Truth => "true or false".to_owned(),
        Kind::Name(realm) => format!("the name of a {}", realm.word()),
        Kind::Peer => "an address, a prefix, `@set` or a host".to_owned(),
        Kind::Member => "a host and its port".to_owned(),
        Kind::Ports => "a port or a range of ports".to_owned(),
        Kind::OneOrMany(kind) => what(kind),
        Kind::Many(_) => "an array".to_owned(),
        Kind::Table(_) | Kind::Named(_) => "a table".to_owned(),
        Kind::Secret => "a secret".to_owned(),
    }
}

fn example(kind: &Kind) -> String {
    match kind {
        Kind::Text => "\"…\"".to_owned(),
        Kind::Word(word) => format!("\"{}\"", word.examples.first().copied().unwrap_or("…")),
        Kind::Whole { least, .. } => least.to_string(),
        Kind::Truth => "true".to_owned(),
        Kind::Choice(choices) => {
            let word = choices.iter().find(|choice| choice.later.is_none());
            format!("\"{}\"", word.map_or("…", |choice| choice.word))
        }
        Kind::Name(realm) => format!("\"<{}>\"", realm.word()),
        Kind::Peer => "\"198.51.100.0/24\"".to_owned(),
        Kind::Member => "\"web1:3306\"".to_owned(),
        Kind::Ports => "\"1024-65535\"".to_owned(),
        Kind::OneOrMany(kind) => example(kind),
        Kind::Many(kind) => format!("[{}]", example(kind)),
        Kind::Table(table) => {
            let needed: Vec<_> = table
                .keys
                .iter()
                .filter(|key| key.needed)
                .map(|key| format!("{} = {}", key.name, example(&key.kind)))
                .collect();
            match needed.join(", ") {
                none if none.is_empty() => "{ … }".to_owned(),
                keys => format!("{{ {keys} }}"),
            }
        }
        Kind::Named(named) => format!("{{ name = {} }}", example(&named.kind)),
        Kind::Quantity => "5_000".to_owned(),
        Kind::Secret => "{ credential = \"…\" }".to_owned(),
    }
}
